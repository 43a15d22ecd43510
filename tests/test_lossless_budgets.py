"""choose_budget within a step: which of its rules keep the target's joint law, enumerated exactly."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from enumeration import Keys
from test_lossless_exact import ANY_SCORE, DIRECT, LOSSLESS, about, bias, is_target, model_of

from tetris_kernels import choose_budget

# Two requests of two drafts: sizes with room for 0 to 4 of them, and what they cost.
COSTS = {
    "a staircase": ((2, 3, 4, 5, 6), (1.0, 1.3, 1.35, 1.7, 1.75)),
    "buckets": ((2, 4, 6), (1.0, 1.2, 1.7)),
    "buckets beyond": ((1, 3, 8), (0.9, 1.0, 1.6)),
    "a curve": ((2, 3, 4, 5, 6), (1.0, 1.1, 1.25, 1.5, 1.9)),
}


def chosen(costs: str, rule: str) -> Callable[[Keys, int], int]:
    """The budget that the library chooses from the keys of a step's drafts."""
    tokens, seconds = COSTS[costs]
    table = torch.tensor(tokens), torch.tensor(seconds)

    @functools.cache
    def of(keys: tuple[tuple[int, ...], ...]) -> int:
        logprobs = -torch.tensor([[b - a for a, b in zip((0, *row), row, strict=False)] for row in keys]) / 65536
        return int(choose_budget(logprobs, *table, rule=rule, greedy=rule == "argmax"))

    return lambda keys, budget: of(tuple(map(tuple, keys)))


@pytest.mark.parametrize("costs", COSTS)
@pytest.mark.parametrize("way", LOSSLESS)
def test_first_drop_is_lossless(way: str, costs: str) -> None:
    for seed in (4, 6, 20):
        ruled = replace(LOSSLESS[way], rule=chosen(costs, "first drop"))
        assert is_target(model_of(way, seed), ruled, steps=2, length=3)


def test_its_budgets_differ_from_step_to_step() -> None:
    """Else these tests would say no more than those of fixed budgets."""
    rule = chosen("a staircase", "first drop")
    keys = [((0, 0), (0, 0)), ((0, 65536), (9, 9)), ((6 * 65536,) * 2,) * 2, ((0, 6 * 65536), (6 * 65536,) * 2)]
    assert len({rule(k, 0) for k in keys}) >= 3


@pytest.mark.parametrize(("costs", "amount"), [("a staircase", 0.1708), ("buckets", 0.1309), ("a curve", 0.1863)])
def test_first_drop_with_a_direct_bonus_and_token_scores_is_biased(costs: str, amount: float) -> None:
    assert bias(replace(DIRECT, rule=chosen(costs, "first drop")), 6) == about(amount)


@pytest.mark.parametrize(("way", "seed", "amount"), [("token, coupled", 20, 0.0734), ("top", 33, 0.2025)])
def test_argmax_over_a_staircase_is_biased(way: str, seed: int, amount: float) -> None:
    assert bias(replace(LOSSLESS[way], rule=chosen("a staircase", "argmax")), seed) == about(amount)


@pytest.mark.parametrize("way", ANY_SCORE)
def test_argmax_is_lossless_where_nothing_was_drawn_or_the_target_is_greedy(way: str) -> None:
    for seed in (20, 33):
        ruled = replace(ANY_SCORE[way], rule=chosen("a staircase", "argmax"))
        assert is_target(model_of(way, seed), ruled, steps=2, length=3)
