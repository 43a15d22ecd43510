"""Temperatures, top-p and random numbers of requests."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tetris_decode.sampling import Sampling

LOGITS = torch.tensor([0.5, 0.3, 0.15, 0.05]).log()


def test_one_temperature_is_a_number():
    assert Sampling(3).is_greedy and Sampling(3).temperature == 0.0
    assert Sampling(3, temperature=[0.0, 0, 0]).is_greedy
    assert Sampling(3, temperature=[0.7] * 3).temperature == 0.7
    mixed = Sampling(3, temperature=[0, 0.7, 1])
    assert not mixed.is_greedy
    torch.testing.assert_close(mixed.temperature, torch.tensor([0, 0.7, 1]))


def test_streams_are_the_requests_own():
    first, second = Sampling(3, temperature=1, seeds=[5, 6, 5]), Sampling(2, temperature=1, seeds=[6, 7])
    drawn = torch.cat([first.uniforms(4), first.uniforms(2)], 1)
    assert torch.equal(drawn[0], drawn[2]) and not torch.equal(drawn[0], drawn[1])
    assert torch.equal(second.uniforms(4)[0], drawn[1, :4]), "whoever else is in the batch"
    assert drawn.ge(0).all() and drawn.lt(1).all() and drawn.unique().numel() == 12
    assert not torch.equal(Sampling(2, temperature=1).uniforms(1)[0], Sampling(2, temperature=1).uniforms(1)[1])


def test_greedy_draws_nothing():
    assert torch.equal(Sampling(2).uniforms(3), torch.zeros(2, 3))


def test_scaled():
    rows = LOGITS.repeat(3, 1)
    assert Sampling(3).scaled(rows) is rows
    torch.testing.assert_close(Sampling(3, temperature=0.5).scaled(rows), rows * 2)
    mixed = Sampling(3, temperature=[0, 0.5, 2])
    expected = torch.stack([LOGITS, LOGITS * 2, LOGITS / 2])
    torch.testing.assert_close(mixed.scaled(rows), expected)
    torch.testing.assert_close(mixed.scaled(rows, torch.tensor([2, 0, 1])), expected[[2, 0, 1]])


@pytest.mark.parametrize(("top_p", "kept"), [(0.4, 1), (0.6, 2), (0.9, 3), (0.96, 4), (1.0, 4)])
def test_top_p_keeps_the_fewest(top_p, kept):
    rows = LOGITS.repeat(2, 1)
    filtered = Sampling(2, temperature=1.0, top_p=top_p).filtered(rows, torch.tensor([0, 1]))
    assert torch.equal(filtered[:, :kept], rows[:, :kept]), "logits that stay are not touched"
    assert filtered[:, kept:].eq(-torch.inf).all()


def test_top_p_goes_by_the_probabilities_after_temperature():
    rows = LOGITS.repeat(2, 1)
    filtered = Sampling(2, temperature=[0.25, 4.0], top_p=0.85).filtered(rows, torch.tensor([0, 1]))
    assert filtered.isfinite().sum(1).tolist() == [1, 4]
    assert Sampling(2, top_p=0.8).filtered(rows, torch.tensor([0, 1])) is rows, "greedy: nothing to leave out"


def test_top_p_leaves_greedy_requests_alone():
    """Of equal logits it may keep another than the lowest token."""
    tied = torch.tensor([0.1, 0.4, 0.1, 0.4]).log().repeat(2, 1)
    filtered = Sampling(2, temperature=[0.0, 1.0], top_p=0.3).filtered(tied, torch.tensor([0, 1]))
    assert torch.equal(filtered[0], tied[0])
    assert filtered[1].isfinite().sum() == 1


@pytest.mark.parametrize("temperature", [[0, 1], np.array([0.5, 0.7]), [np.float32(0.5), 1]], ids=str)
def test_numbers_of_any_type(temperature):
    for default in (torch.float32, torch.float64):
        torch.set_default_dtype(default)
        try:
            sampling = Sampling(2, temperature=temperature)
            assert sampling.temperature.dtype == sampling.uniforms(3).dtype == torch.float32
        finally:
            torch.set_default_dtype(torch.float32)
    assert Sampling(2, temperature=np.float32(0.5)).temperature == 0.5


def test_draws_are_exact_over_a_large_vocabulary():
    """A running sum in float32 would lose its last tokens."""
    tokens = torch.tensor([0, 1, 777, 40000, 65533, 65534, 65535])
    uniforms = (tokens + 0.5) / 65536
    drawn = Sampling(len(tokens), temperature=1.0).draw(torch.zeros(1, 65536).expand(len(tokens), -1), uniforms)
    assert torch.equal(drawn, tokens)


def test_draws_follow_the_probabilities():
    count = 2000
    sampling = Sampling(count, temperature=1.0)
    uniforms = (torch.arange(count) + 0.5) / count
    drawn = sampling.draw(LOGITS.repeat(count, 1), uniforms)
    assert drawn.bincount(minlength=4).tolist() == [1000, 600, 300, 100]
    edges = Sampling(2, temperature=1.0).draw(torch.tensor([[-torch.inf, 0, -torch.inf]] * 2), torch.tensor([0.0, 1.0]))
    assert edges[0] == 1 and 0 <= edges[1] < 3


def test_greedy_requests_get_the_most_probable():
    drawn = Sampling(2, temperature=[0, 1.0]).draw(LOGITS.repeat(2, 1), torch.tensor([0.99, 0.99]))
    assert drawn.tolist() == [0, 3]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"temperature": -0.5}, r"temperature: expected finite numbers from 0 on, got -0\.5"),
        ({"temperature": [1, 1, float("nan")]}, "temperature: expected finite numbers from 0 on, got nan"),
        ({"temperature": float("inf")}, "temperature: expected finite numbers from 0 on, got inf"),
        ({"temperature": [1, 1]}, "temperature: expected one for each of 3 requests, got 2"),
        ({"seeds": [1]}, "seeds: expected one for each of 3 requests, got 1"),
        ({"top_p": 0}, r"top_p: expected a number above 0 and up to 1, got 0"),
        ({"top_p": 1.5}, r"top_p: expected a number above 0 and up to 1, got 1\.5"),
    ],
)
def test_what_is_refused(arguments, text):
    with pytest.raises(ValueError, match=text):
        Sampling(3, **arguments)
