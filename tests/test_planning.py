"""plan_budget against goodputs by hand and by search, and what it refuses; the budgets that a table offers."""

from __future__ import annotations

import math
import random
import re
from fractions import Fraction

import pytest

from tetris_kernels import CostTable, plan_budget
from tetris_kernels.costs import MAX_ENDS

STAIRS = CostTable(key={}, tokens=(8, 16, 32), seconds=(1.0, 1.5, 4.0), draft_seconds=(0.0, 0.25, 0.5), staircase=True)
LINE = CostTable(key={}, tokens=(1, 4, 8000), seconds=(1.0, 1.0, 3.0), draft_seconds=(0.0,) * 9)


def budget(*arguments, **options) -> int:
    return plan_budget(*arguments, **options).budget


def test_by_hand():
    # 4 / 1 tokens a second without drafts, (4 + 2.5) / 1.25 up to 8 tokens, (4 + 5) / 1.75 up to 16, 10 / 4.25 beyond.
    assert budget([2.5, 5.0, 6.0], [4, 12, 28], STAIRS, 4, 1) == 4
    # With drafts that cost twice as much: 6.5 / 1.5 and 9 / 2.
    assert budget([2.5, 5.0, 6.0], [4, 12, 28], STAIRS, 4, 2, current=4) == 12


def test_no_speculation_is_among_the_choices():
    assert budget([0.5, 0.6], [4, 12], STAIRS, 4, 1) == 0
    assert budget([0.5, 0.6], [0, 12], STAIRS, 4, 1, current=12) == 0
    # Full: whatever is verified costs another bucket.
    assert budget([3.0], [16], STAIRS, 16, 1) == 0


def test_the_maximum_is_global():
    """A budget of 1 is worse than none, one of 4 better than both: the costs hardly rise where the drafts survive."""
    costs = CostTable(key={}, tokens=(1, 2, 5, 6), seconds=(1.0, 2.0, 2.1, 9.0), draft_seconds=(0.0,) * 9)
    assert budget([0.9, 1.8, 2.7, 3.6, 4.0], [1, 2, 3, 4, 5], costs, 1, 8) == 4


def test_a_small_gain_changes_nothing():
    expected, budgets = [1.01, 1.05], [1, 2]
    costs = CostTable(key={}, tokens=(1, 2, 3), seconds=(1.0, 2.0, 2.01), draft_seconds=(0.0, 0.0))
    # 1, 2.01 / 2 and 2.05 / 2.01: 2 % more than none at most.
    assert budget(expected, budgets, costs, 1, 1) == 0
    assert budget(expected, budgets, costs, 1, 1, current=1) == 1
    assert budget(expected, budgets, costs, 1, 1, current=2) == 2
    assert budget(expected, budgets, costs, 1, 1, min_gain=0.0) == 2
    assert budget(expected, budgets, costs, 1, 1, min_gain=0.0, current=1) == 2
    # One that is not offered any more counts as none.
    assert budget(expected, budgets, costs, 1, 1, current=7) == 0


def test_of_equal_budgets_the_smaller_one():
    flat = CostTable(key={}, tokens=(1, 4, 5), seconds=(1.0, 1.0, 9.0), draft_seconds=(0.0, 0.0))
    assert budget([0.5, 0.5, 0.5], [1, 2, 3], flat, 1, 1) == 1


def test_nobody_runs():
    assert budget([0.0], [4], STAIRS, 0, 1) == 0
    assert budget([], [], STAIRS, 4, 1) == 0


@pytest.mark.parametrize("seed", range(200))
def test_against_a_search_in_fractions(seed):
    rng = random.Random(seed)
    points = sorted(rng.sample(range(1, 40), rng.randint(3, 6)))
    seconds = sorted(rng.randint(1, 12) for _ in points)
    seconds[-1] += 1
    costs = CostTable({}, tuple(points), tuple(map(float, seconds)), (0.0, 0.5), staircase=rng.random() < 0.5)
    requests = rng.randint(1, points[0])
    budgets = costs.budgets(requests, rng.randint(0, 40))
    expected = [rng.randint(0, 64) / 8 for _ in budgets]

    def goodput(drafts: int, accepted: float) -> Fraction:
        time = Fraction(costs.verification(requests + drafts)) + (Fraction(1, 2) if drafts else 0)
        return (requests + Fraction(accepted)) / time

    choices = {0: goodput(0, 0)} | {b: goodput(b, a) for b, a in zip(budgets, expected, strict=True) if b}
    plan = plan_budget(expected, budgets, costs, requests, 1, min_gain=0.0)
    assert float(choices[plan.budget]) == pytest.approx(float(max(choices.values())), rel=1e-12)
    assert plan.goodput == pytest.approx(float(choices[plan.budget]), rel=1e-12)


def test_budgets_of_a_staircase_fill_buckets():
    assert STAIRS.budgets(4, 100) == [4, 12, 28]
    assert STAIRS.budgets(8, 100) == [0, 8, 24]
    assert STAIRS.budgets(9, 100) == [7, 23]
    assert STAIRS.budgets(4, 10) == [4, 10]
    assert STAIRS.budgets(4, 4) == [4]
    assert STAIRS.budgets(40, 100) == [0]
    assert STAIRS.budgets(4, 0) == [0]


@pytest.mark.parametrize("drafts", [0, 1, 5, 62, 63, 64, 65, 127, 256, 4096])
def test_budgets_of_a_line_are_spread(drafts):
    budgets = LINE.budgets(3, drafts)
    assert len(budgets) <= MAX_ENDS
    assert budgets == sorted(set(budgets))
    assert budgets[-1] == drafts
    assert budgets[0] <= max(drafts / 60, 1)
    if drafts < MAX_ENDS:
        assert budgets == list(range(drafts + 1))


def test_no_budget_is_beyond_what_was_measured():
    short = CostTable({}, (1, 9), (1.0, 2.0), (0.0,))
    assert short.budgets(4, 100) == [0, 1, 2, 3, 4, 5]
    assert short.budgets(9, 100) == short.budgets(10, 100) == [0]


def test_many_buckets():
    ends = tuple(range(1, 500))
    stairs = CostTable({}, ends, tuple(map(float, ends)), (0.0,), staircase=True)
    assert len(stairs.budgets(1, 400)) <= MAX_ENDS
    assert set(stairs.budgets(1, 400)) < set(range(401))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"expected": [1.0]}, "expected: expected one value for each of 2 budgets, got 1"),
        ({"expected": [1.0, math.nan]}, "expected: expected numbers from 0 on, got [1.0, nan]"),
        ({"expected": [-1.0, 0.0]}, "expected: expected numbers from 0 on, got [-1.0, 0.0]"),
        ({"budgets": [4, 4]}, "budgets: expected rising integers from 0 on, got [4, 4]"),
        ({"budgets": [-4, 4]}, "budgets: expected rising integers from 0 on, got [-4, 4]"),
        ({"num_requests": -1}, "num_requests: expected 0 or more, got -1"),
        ({"min_gain": -0.1}, "min_gain: expected a number from 0 on, got -0.1"),
        ({"min_gain": math.nan}, "min_gain: expected a number from 0 on, got nan"),
        ({"draft_length": 3}, "length: expected 0 to 2 drafts, got 3"),
        ({"budgets": [4, 40]}, "tokens: expected at most 32, the last bucket, got 44"),
        (
            {"costs": CostTable({}, (1, 9), (1.0, 1.0), (0.0,))},
            "cost table: expected seconds that rise somewhere, or every draft is worth verifying, got 1.0 from 1 to 9 "
            "tokens",
        ),
    ],
)
def test_bad_input(changes, text):
    arguments = {"expected": [1.0, 2.0], "budgets": [4, 12], "costs": STAIRS, "num_requests": 4, "draft_length": 1}
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        plan_budget(**(arguments | changes))


def test_a_missing_table():
    with pytest.raises(TypeError, match="costs: expected a CostTable, got NoneType"):
        budget([1.0], [4], None, 4, 1)  # type: ignore[arg-type]
