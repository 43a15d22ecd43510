"""The heap of oracle.py against every choice of prefixes and against a plain sort."""

from __future__ import annotations

import itertools
import math
import random

import oracle
import pytest
from cases import CASES, EXTREMES, INF, NAN, UNIT, Case, random_case


def sorted_lens(keys: list[list[int]], budget: int) -> list[int]:
    """The first `budget` drafts of all, by (key, position, request)."""
    order = sorted((key, position, r) for r, row in enumerate(keys) for position, key in enumerate(row))
    requests = [r for _, _, r in order[: max(budget, 0)]]
    return [requests.count(r) for r in range(len(keys))]


def random_keys(seed: int, size: int, steps: int) -> list[list[int]]:
    """Rising rows of up to `size` keys, ties included."""
    rng = random.Random(seed)
    rows = [[rng.randrange(steps) for _ in range(rng.randint(0, size))] for _ in range(rng.randint(0, size))]
    return [list(itertools.accumulate(row)) for row in rows]


@pytest.mark.parametrize("steps", [1, 2, 3, 50])
def test_no_choice_of_prefixes_beats_the_heap(steps: int) -> None:
    for seed in range(40):
        keys = random_keys(seed, 4, steps)
        for budget in range(sum(map(len, keys)) + 2):
            lens = oracle.greedy(keys, budget)
            best = oracle.chosen(keys, lens)
            assert sum(lens) == min(budget, sum(map(len, keys)))
            choices = list(oracle.prefix_choices(keys, sum(lens)))
            assert tuple(lens) in choices
            for other in choices:
                theirs = oracle.chosen(keys, other)
                assert all(a <= b for a, b in zip(best, theirs, strict=True))


@pytest.mark.parametrize("steps", [1, 2, 5, 1000])
def test_the_heap_takes_the_first_of_all_in_order(steps: int) -> None:
    for seed in range(60):
        keys = random_keys(seed, 7, steps)
        for budget in range(-1, sum(map(len, keys)) + 2):
            assert oracle.greedy(keys, budget) == sorted_lens(keys, budget)


@pytest.mark.parametrize("case", [case for case in CASES if case.logprobs.numel() <= 200], ids=lambda case: case.name)
def test_the_heap_takes_the_first_of_the_named_cases(case: Case) -> None:
    keys = case.order_keys()
    assert all(row == sorted(row) for row in keys)
    for budget in range(0, sum(map(len, keys)) + 2, 3):
        assert oracle.greedy(keys, budget) == sorted_lens(keys, budget)


def test_the_best_choice_has_the_largest_sum_of_survivals() -> None:
    for seed in range(20):
        keys = [[key * 9000 for key in row] for row in random_keys(seed, 3, 4)]
        lens = oracle.greedy(keys, 4)

        def value(lens: tuple[int, ...], keys: list[list[int]] = keys) -> float:
            return math.fsum(math.exp(-key / 65536) for key in oracle.chosen(keys, lens))

        assert value(tuple(lens)) == max(map(value, oracle.prefix_choices(keys, sum(lens))))


def test_choices_of_prefixes() -> None:
    assert set(oracle.prefix_choices([[1, 2], [1]], 2)) == {(2, 0), (1, 1)}
    assert list(oracle.prefix_choices([], 0)) == [()]
    assert oracle.chosen([[3, 5], [4]], (2, 1)) == [3, 4, 5]


@pytest.mark.parametrize(
    ("logprob", "cost"),
    [
        (0.0, 0),
        (-0.0, 0),
        (1.0, 0),
        (INF, 0),
        (-1.0, 65536),
        (-64.0, 2**22),
        (-65.0, 2**22),
        (-INF, 2**22),
        (NAN, 2**22),
    ]
    + [(-UNIT, 1), (-UNIT / 2, 0), (-UNIT * 1.75, 1), (-UNIT * 3, 3)],
)
def test_token_costs(logprob: float, cost: int) -> None:
    assert oracle.token_cost(logprob) == cost


@pytest.mark.parametrize(
    ("log_weight", "cost"),
    [(500.0, 0), (600.0, 0), (INF, 0), (0.0, 500 * 65536), (-500.0, 1000 * 65536), (-INF, 1000 * 65536)]
    # 500 - w is rounded to float32, whose neighbours of 500 are two units apart.
    + [(NAN, 1000 * 65536), (-UNIT / 2, 500 * 65536), (-2 * UNIT, 500 * 65536 + 2), (1e-42, 500 * 65536)],
)
def test_weight_costs(log_weight: float, cost: int) -> None:
    assert oracle.weight_cost(log_weight) == cost


def test_keys_of_a_row() -> None:
    assert oracle.row_keys([-1.0, -0.5, 0.0], 3, 0, 3, None) == [65536, 98304, 98304]
    assert oracle.row_keys([-1.0, -0.5, 0.0], 3, 1, 2, None) == [-1, 98304]
    assert oracle.row_keys([-1.0, -0.5], 2, 0, 2, 500.0) == [65536, 98304]
    assert oracle.row_keys([-1.0, -0.5], 2, 9, 1, -INF) == [-1]
    for extreme in EXTREMES:
        assert len(oracle.row_keys([0.0, 0.0, 0.0], extreme, 0, 9, None)) == min(max(extreme, 0), 3)


def test_select_adds_the_running_total() -> None:
    assert oracle.select([[0.0, -1.0], [-0.5, -0.1]], 3) == ([1, 2], [0, 1, 3])
    assert oracle.select([], 3) == ([], [0])
    case = random_case(3)
    lens, cu_lens = oracle.select(case.logprobs.tolist(), 4)
    assert cu_lens == [sum(lens[:r]) for r in range(len(lens) + 1)]
