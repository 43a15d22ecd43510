"""MeanExpectation: a weighted mean over steps, per request, for batches of any size."""

from __future__ import annotations

import math

import pytest
import torch

from tetris_kernels import MeanExpectation, expected_accepts


def step(logprobs: torch.Tensor) -> tuple[list[float], list[int], int]:
    """What `add` takes of a step."""
    budgets = MeanExpectation.budgets(*logprobs.shape)
    return expected_accepts(logprobs, torch.tensor(budgets)).tolist(), budgets, len(logprobs)


def test_budgets_go_from_none_to_all():
    assert MeanExpectation.budgets(2, 3) == [0, 1, 2, 3, 4, 5, 6]
    many = MeanExpectation.budgets(64, 8)
    assert many[0] == 0 and many[-1] == 512 and len(many) == 64 and many == sorted(set(many))
    assert MeanExpectation.budgets(0, 8) == [0]


def test_of_one_step_it_is_that_step():
    torch.manual_seed(0)
    logprobs = -torch.rand(4, 3)
    mean = MeanExpectation(3)
    assert mean.is_empty and mean.expected([0, 5], 4) == [0.0, 0.0]
    expected, budgets, n = step(logprobs)
    mean.add(expected, budgets, n)
    assert not mean.is_empty
    assert mean.expected(budgets, n) == pytest.approx(expected, abs=1e-4)
    # Per request: twice as many are promised twice as much, and no more than all drafts promise.
    assert mean.expected([2 * b for b in budgets], 2 * n) == pytest.approx([2 * e for e in expected], abs=1e-4)
    assert mean.expected([100], n) == pytest.approx(expected[-1:], abs=1e-4)


def test_between_points_it_is_linear():
    mean = MeanExpectation(1)
    mean.add([0.0, 4.0, 6.0], [0, 4, 8], 8)
    assert mean.expected([1, 2, 4, 6, 8], 8) == pytest.approx([1, 2, 4, 5, 6])


def test_a_step_counts_by_its_requests_and_its_age():
    first, then = ([0.0, 1.0], [0, 4], 4), ([0.0, 6.0], [0, 12], 12)
    mean = MeanExpectation(1, memory=1e12)
    mean.add(*first)
    mean.add(*then)
    assert mean.expected([4], 4) == pytest.approx([4 * (1 / 4 * 4 + 1 / 2 * 12) / 16])
    forgetful = MeanExpectation(1, memory=12)
    forgetful.add(*first)
    forgetful.add(*then)
    # After 12 verifications the first step's weight is a half of its 4 requests.
    assert forgetful.expected([4], 4) == pytest.approx([4 * (1 / 4 * 2 + 1 / 2 * 12) / 14])


def test_fewer_drafts_than_the_most_promise_no_more():
    mean = MeanExpectation(8)
    mean.add([0.0, 1.0, 1.5], [0, 2, 4], 2)
    assert mean.expected([2, 4, 16], 2) == pytest.approx([1.0, 1.5, 1.5])


def test_no_requests_add_nothing():
    mean = MeanExpectation(2)
    mean.add([0.0], [0], 0)
    assert mean.is_empty and mean.expected([0], 0) == [0.0]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: MeanExpectation(0), "num_drafts: expected at least 1, got 0"),
        (lambda: MeanExpectation(257), "num_drafts: expected .* 256, got 257"),
        (lambda: MeanExpectation(True), "num_drafts: expected an integer, got bool"),
        (lambda: MeanExpectation(2, memory=0), "memory: expected a number above 0, got 0"),
        (lambda: MeanExpectation(2, memory=math.nan), "memory: expected a number above 0, got nan"),
        (lambda: MeanExpectation(2).add([1.0], [0, 1], 1), "expected: expected one value for each of 2 budgets, got 1"),
    ],
)
def test_wrong_input(make, text):
    with pytest.raises((TypeError, ValueError), match=text):
        make()
