"""How many drafts of each request are verified, against the heap of the contract."""

from __future__ import annotations

import math
import random

import oracle
import pytest
import torch

from tetris_kernels import CostTable
from tetris_vllm.choosing import Choice, Chooser
from tetris_vllm.settings import Budget, Settings

K = 4
NAMES = "abcdefgh"


def chooser(kind: str, amount: float = 0, **settings) -> Chooser:
    return Chooser(Settings(Budget(kind, amount), **settings), K)


def some_scores(rng: random.Random, rows: int) -> list[list[float]]:
    return [[-rng.expovariate(1) for _ in range(K)] for _ in range(rows)]


CASES = {
    "ordinary": lambda rng: some_scores(rng, 8),
    "all equal": lambda rng: [[-0.5] * K] * 8,
    "certain": lambda rng: [[0.0] * K] * 8,
    "never": lambda rng: [[-math.inf] * K] * 8,
    "not a number": lambda rng: [[math.nan] * K, *some_scores(rng, 7)],
    "one": lambda rng: some_scores(rng, 1),
}


@pytest.mark.parametrize("floor", [0, 1, 9])
@pytest.mark.parametrize("budget", [0, 1, 5, 12, 31])
@pytest.mark.parametrize("case", CASES)
def test_lens_are_those_of_the_heap(case, budget, floor):
    rng = random.Random(budget)
    scores = CASES[case](rng)
    usable = [rng.randint(0, K) for _ in scores]
    choice = chooser("absolute", budget, min_drafts=floor).choose(NAMES[: len(scores)], usable, torch.tensor(scores))
    assert choice.budget == budget
    if budget >= sum(usable):
        assert choice.lens == usable
    else:
        floors = [floor] * len(scores)
        assert choice.lens == oracle.select(scores, budget, draft_lens=usable, min_lens=floors)[0]
        assert sum(choice.lens) == budget


def test_all_is_no_limit():
    assert chooser("all").choose("ab", [4, 4], torch.zeros(2, K)) is None


@pytest.mark.parametrize(("rows", "budget"), [(1, 2), (2, 3), (3, 4), (4, 6), (8, 12)])
def test_a_budget_per_request_grows_with_the_batch(rows, budget):
    """Of a half, Python rounds to the even number."""
    choice = chooser("per request", 1.5).choose(NAMES[:rows], [K] * rows, -torch.ones(rows, K))
    assert (choice.budget, sum(choice.lens)) == (budget, budget)


def test_requests_without_drafts_count_as_requests():
    assert chooser("per request", 1).choose("abc", [4, 0, 0], -torch.ones(3, K)) == Choice([3, 0, 0], [], 3)


def test_drafts_that_are_held_come_first_and_count_as_requests():
    picked = chooser("absolute", 5)
    assert picked.choose("ab", [4, 4], -torch.ones(2, K), held=[2]) == Choice([2, 1], [2], 5)
    assert chooser("per request", 1).choose("ab", [4, 4], -torch.ones(2, K), held=[1]) == Choice([1, 1], [1], 3)
    assert chooser("absolute", 1, min_batch=3).choose("ab", [4, 4], -torch.ones(2, K), held=[1]).lens == [0, 0]


@pytest.mark.parametrize(("held", "kept"), [([3, 4], [3, 2]), ([5, 1, 2], [5, 0, 0]), ([2, 2], [2, 2])])
def test_a_budget_that_has_fallen_cuts_what_is_held(held, kept):
    choice = chooser("absolute", 5).choose("ab", [4, 4], -torch.ones(2, K), held=held)
    assert choice.held == kept and sum(choice.lens) == 5 - sum(kept)
    assert chooser("absolute", 5).choose("", [], held=held) == Choice([], kept, 5)


def test_small_batches_are_left_alone():
    picked = chooser("absolute", 1, min_batch=3)
    assert picked.choose("ab", [4, 4], -torch.ones(2, K)) is None
    assert picked.choose("abc", [4, 4, 4], -torch.ones(3, K)) == Choice([1, 0, 0], [], 1)


def test_nobody_decodes():
    assert chooser("absolute", 1).choose([], []) is None
    assert chooser("per request", 1).choose([], []) is None


def test_without_scores_the_more_successful_request_gets_more():
    picked = chooser("absolute", 4)
    for _ in range(5):
        picked.history.observe("a", 2, 0)
        picked.history.observe("b", 2, 2)
    choice = picked.choose("abc", [4, 4, 4])
    assert choice.lens[1] > choice.lens[2] >= choice.lens[0]
    rates = [[math.log(picked.history.rate(name))] * K for name in "abc"]
    assert choice.lens == oracle.select([[oracle.float32(x) for x in row] for row in rates], 4)[0]


# Verifying pays up to 16 tokens, then it costs.
COSTS = CostTable({}, (8, 16, 17, 40), (1.0, 1.0, 5.0, 9.0), (0.0, 0.1, 0.2, 0.3, 0.4))


def adaptive() -> Chooser:
    return Chooser(Settings(Budget("adaptive")), K, COSTS)


def test_an_adaptive_budget_follows_the_costs():
    """It begins with a draft for each request, then takes what is free, and no more."""
    picked, scores = adaptive(), torch.full((8, K), -0.1)
    budgets = [picked.choose(NAMES, [K] * 8, scores).budget for _ in range(3)]
    assert budgets == [8, 8, 8]
    picked = adaptive()
    budgets = [picked.choose(NAMES[:4], [K] * 4, scores[:4]).budget for _ in range(3)]
    assert budgets == [4, 12, 12]


# Each token costs about as much as a few requests' anchors.
DEAR = CostTable({}, (1, 100), (1.0, 10.0), (0.0,) * 5)


def test_an_adaptive_budget_of_hopeless_drafts_is_nothing_if_each_costs():
    picked = Chooser(Settings(Budget("adaptive")), K, DEAR)
    scores = torch.full((4, K), -5.0)
    choices = [picked.choose("abcd", [K] * 4, scores) for _ in range(3)]
    assert [choice.budget for choice in choices] == [4, 0, 0]
    assert choices[-1].lens == [0, 0, 0, 0]
    # It looks on at what the drafts promise, and comes back.
    later = [picked.choose("abcd", [K] * 4, torch.zeros(4, K)).budget for _ in range(800)]
    assert later[0] == 0 and later[-1] == 16


def test_the_budget_of_a_step_is_settled_before_its_drafts_are_seen():
    """Else sampled output would be biased."""
    budgets = {}
    for last in (-5.0, 0.0):
        picked = Chooser(Settings(Budget("adaptive")), K, DEAR)
        for _ in range(8):
            picked.choose("abcd", [K] * 4, torch.full((4, K), -0.3))
        seen = [picked.choose("abcd", [K] * 4, torch.full((4, K), last)).budget for _ in range(2)]
        budgets[last] = seen
    assert budgets[-5.0][0] == budgets[0.0][0]
    # The ninth step is one that is looked at, for those after it.
    assert budgets[-5.0][1] < budgets[0.0][1]


def test_beyond_the_last_bucket_nothing_is_verified():
    table = CostTable({}, (4, 8), (1.0, 1.1), (0.0,) * 5, staircase=True)
    picked = Chooser(Settings(Budget("adaptive")), K, table)
    for rows, budgets in ((8, [0, 0]), (9, [0]), (4, [4])):
        scores = torch.full((rows, K), -0.1)
        names = [str(i) for i in range(rows)]
        assert [picked.choose(names, [K] * rows, scores).budget for _ in budgets] == budgets


def test_adaptive_budgets_that_are_refused():
    with pytest.raises(ValueError, match="costs: expected a CostTable with an adaptive budget, got None"):
        Chooser(Settings(Budget("adaptive")), K)
    with pytest.raises(ValueError, match="length: expected 0 to 4 drafts, got 5"):
        Chooser(Settings(Budget("adaptive")), 5, COSTS)
    flat = CostTable({}, (1, 2), (1.0, 1.0), (0.0,) * 5)
    with pytest.raises(ValueError, match="cost table: expected seconds that rise somewhere"):
        Chooser(Settings(Budget("adaptive")), K, flat)
