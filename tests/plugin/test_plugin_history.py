"""Rates of acceptance against lists of all tests, each with its weight."""

from __future__ import annotations

import random

import pytest
import torch

from tetris_vllm.history import FORGET, FORGET_ALL, PRIOR, AcceptanceHistory


def by_lists(steps: list[tuple[str, int, int]], request: str) -> float:
    """The rate after (request, verified, accepted) step after step, from every single test."""

    def counts(mine, kept):
        accepted = tested = 0.0
        for age, (_, verified, got) in enumerate(reversed(mine)):
            tests = [1] * got + [0] * (verified > got)
            accepted += kept**age * sum(tests)
            tested += kept**age * len(tests)
        return accepted, tested

    accepted, tested = counts(steps, FORGET_ALL)
    of_all = (accepted + 1) / (tested + 2)
    accepted, tested = counts([step for step in steps if step[0] == request], FORGET)
    return (accepted + PRIOR * of_all) / (tested + PRIOR)


@pytest.mark.parametrize("seed", range(20))
def test_rates_are_those_of_lists(seed):
    rng = random.Random(seed)
    history, steps = AcceptanceHistory(), []
    for _ in range(rng.randrange(60)):
        verified = rng.randrange(5)
        steps.append((rng.choice("abc"), verified, rng.randint(0, verified)))
        history.observe(*steps[-1])
    for request in "abcd":
        assert history.rate(request) == pytest.approx(by_lists(steps, request), rel=1e-12)


def test_without_history_a_draft_is_as_likely_as_not():
    assert AcceptanceHistory().rate("new") == 0.5


def test_rates_stay_between_never_and_always():
    history = AcceptanceHistory()
    for _ in range(2000):
        history.observe("never", 4, 0)
        history.observe("always", 4, 4)
    assert 0 < history.rate("never") < 0.2 < 0.9 < history.rate("always") < 1


def test_who_gets_nothing_comes_back():
    """A request that is not verified any more would never be again if its rate stayed."""
    history = AcceptanceHistory()
    for _ in range(20):
        history.observe("unlucky", 4, 0)
        history.observe("other", 4, 3)
    before = history.rate("unlucky")
    for _ in range(100):
        history.observe("unlucky", 0, 0)
        history.observe("other", 4, 3)
    assert before < 0.2
    assert history.rate("unlucky") == pytest.approx(history.rate("new"), abs=0.01)


def test_when_nobody_gets_anything_all_come_back():
    history = AcceptanceHistory()
    for _ in range(50):
        history.observe("a", 4, 0)
    assert history.rate("new") < 0.05
    for _ in range(10_000):
        history.observe("a", 0, 0)
    assert history.rate("new") == pytest.approx(0.5, abs=0.01)


def test_logprobs():
    history = AcceptanceHistory()
    history.observe("a", 4, 4)
    logprobs = history.logprobs(["a", "b"], 3)
    assert (logprobs.shape, logprobs.dtype) == ((2, 3), torch.float32)
    rates = [[history.rate(name)] * 3 for name in ("a", "b")]
    torch.testing.assert_close(logprobs.exp(), torch.tensor(rates, dtype=torch.float32))
    assert history.logprobs([], 3).shape == (0, 3)


def test_requests_that_are_gone_are_forgotten():
    history = AcceptanceHistory()
    for i in range(1000):
        history.observe(str(i), 4, 4)
        history.keep({str(i)})
    assert len(history._requests) <= 2 + 64 + 1
    assert history.rate("999") > history.rate("0") == history.rate("new")
