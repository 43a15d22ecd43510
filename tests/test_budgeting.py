"""`choose_budget` of every backend against the oracle: the same integer."""

from __future__ import annotations

import itertools
import math
import random
from typing import Any

import oracle_budgeting
import pytest
import torch
from budgeting_cases import BATCHES, COSTS, REQUESTS, Costs, check_choice, large, random_costs, sums_of
from cases import CASES, Case, Target, certain, random_case
from conftest import INTERPRETED

from tetris_kernels import choose_budget, select

pytestmark = pytest.mark.usefixtures("poisoned")

BUCKETS = Costs("buckets", [0, 1, 2, 4, 8, 16], [1.0, 1.05, 1.1, 1.2, 1.5, 2.1])


# The interpreter takes a tenth of a second a program, of which there are two for each end; tests/ptx runs them all.
FEW = [costs for costs in COSTS if len(costs.tokens) < 8][::4]


@pytest.mark.parametrize("costs", FEW if INTERPRETED else COSTS, ids=lambda costs: costs.name)
def test_named_costs(costs: Costs, target: Target) -> None:
    kinds = list(REQUESTS)
    for i, case in enumerate(BATCHES[:: 1 + 4 * INTERPRETED]):
        check_choice(case.on(target.device), costs, sums_of(case), target.backend, kinds[i % len(kinds)])


@pytest.mark.parametrize("case", CASES[:: 1 + 2 * INTERPRETED], ids=lambda case: case.name)
def test_named_batches(case: Case, target: Target) -> None:
    rule = "argmax" if len(case.name) % 3 == 0 else "first drop"
    costs = Costs("", BUCKETS.tokens[::2], BUCKETS.seconds[::2], rule=rule)
    check_choice(case.on(target.device), costs, sums_of(case), target.backend)


@pytest.mark.parametrize("kind", REQUESTS)
def test_what_requests_can_be(kind: str, target: Target) -> None:
    case = Case("", certain(6, 4))
    for requests in (0, 3, 8):
        costs = Costs("", BUCKETS.tokens[1::2], BUCKETS.seconds[1::2], requests=requests)
        check_choice(case.on(target.device), costs, sums_of(case), target.backend, kind)


@pytest.mark.parametrize("sweep", range(4))
def test_random_costs(sweep: int, target: Target) -> None:
    chosen = set()
    for seed in range(sweep, 8 if INTERPRETED else 600, 4):
        case, costs = random_case(seed), random_costs(seed)
        if INTERPRETED and len(costs.tokens) > 5:
            continue
        chosen.add(check_choice(case.on(target.device), costs, sums_of(case), target.backend))
    assert INTERPRETED or len(chosen) > 10


@pytest.mark.parametrize(("n", "k"), [(256, 11), (2048, 8), (512, 32)])
def test_large_batches(n: int, k: int, target: Target) -> None:
    case = large(n, k)
    sums = sums_of(case)
    total = len(sums) - 1
    sizes = [0, total // 5, total // 2][: 2 if INTERPRETED else 3]
    for slope in (0.1, 0.4):
        costs = Costs(f"slope {slope}", sizes, [n + slope * size + size * size / total for size in sizes])
        check_choice(case.on(target.device), costs, sums, target.backend)


def test_a_large_batch_that_one_program_does_not_hold() -> None:
    case = large(3000, 8)
    sizes = [0, 3000, 9000, 20000]
    for seconds in ([1.0, 1.2, 1.5, 3.0], [1.0, 3.0, 3.1, 3.2]):
        check_choice(case, Costs("", sizes, seconds), sums_of(case), "auto")


def test_select_takes_the_choice(target: Target) -> None:
    logprobs = certain(6, 4).to(target.device)
    tokens = torch.tensor([6, 8, 12, 24, 40], device=target.device)
    seconds = torch.tensor([1.0, 1.1, 1.2, 2.5, 9.0], device=target.device)
    budget = choose_budget(logprobs, tokens, seconds, backend=target.backend)
    picked = select(logprobs, budget, backend=target.backend)
    assert picked.cu_lens[-1] == budget == 6


def test_a_convex_cost_gives_the_best_of_all_budgets(target: Target) -> None:
    """Without weights and floors, with an end for each number of drafts."""
    rng = random.Random(0)
    for seed in range(1 if INTERPRETED else 60):
        case = Case("", certain(3, 3, seed))
        sums = sums_of(case)
        steps = sorted(rng.choice([0.01, 0.05, 0.1, 0.3, 1.0]) for _ in range(9))
        seconds = [1 + sum(steps[:i]) for i in range(10)]
        costs = Costs("", list(range(10)), seconds)
        budget = check_choice(case.on(target.device), costs, sums, target.backend)
        rates = [(3 + sums[c] / 65536) / seconds[c] for c in range(10)]
        assert rates[budget] >= max(rates) * (1 - 1e-6)


def test_a_gain_is_for_larger_verifications_only(target: Target) -> None:
    """20 tokens a second for what is added, where 10 are there; 12 in 1.1 seconds, 9.1 % more, in all."""
    logprobs = torch.zeros(10, 1, device=target.device)
    tokens = torch.tensor([10, 12, 14], device=target.device)
    seconds = torch.tensor([1.0, 1.1, 5.0], device=target.device)
    for rule in ("first drop", "argmax"):
        options: dict[str, Any] = {"rule": rule, "greedy": True, "backend": target.backend}
        assert choose_budget(logprobs, tokens, seconds, min_gain=0.05, **options) == 2
        assert choose_budget(logprobs, tokens, seconds, min_gain=0.95, **options) == (2 if rule == "first drop" else 0)
        assert choose_budget(logprobs, tokens, seconds, min_gain=1.2, **options) == 0


def test_argmax_gets_over_a_step_and_first_drop_does_not(target: Target) -> None:
    logprobs = torch.full((4, 8), -0.05, device=target.device)
    tokens = torch.tensor([4, 8, 36], device=target.device)
    seconds = torch.tensor([1.0, 2.1, 2.2], device=target.device)
    assert choose_budget(logprobs, tokens, seconds, backend=target.backend) == 0
    assert choose_budget(logprobs, tokens, seconds, rule="argmax", greedy=True, backend=target.backend) == 32


def test_equal_rates_go_to_the_fewer_tokens(target: Target) -> None:
    logprobs = torch.zeros(4, 3, device=target.device)
    tokens = torch.tensor([4, 8, 16], device=target.device)
    for seconds, budget in (([1.0, 2.0, 4.0], 0), ([1.0, 1.0, 2.0], 4)):
        costs = torch.tensor(seconds, device=target.device)
        assert choose_budget(logprobs, tokens, costs, rule="argmax", greedy=True, backend=target.backend) == budget


def test_what_lies_behind_the_next_draft_does_not_matter(target: Target) -> None:
    """first drop depends on the drafts that it takes and on the next one."""
    tokens = torch.tensor([3, 5, 7, 12], device=target.device)
    seconds = torch.tensor([1.0, 1.4, 2.0, 2.1], device=target.device)
    moved = 0
    for seed in range(3 if INTERPRETED else 60):
        logprobs = certain(3, 3, seed)
        keys = Case("", logprobs).order_keys()
        budget = int(choose_budget(logprobs.to(target.device), tokens, seconds, backend=target.backend))
        ranked = sorted((key, j, r) for r, row in enumerate(keys) for j, key in enumerate(row))
        for _, j, r in ranked[budget + 1 :]:
            logprobs[r, j] = -math.inf
            moved += 1
        assert choose_budget(logprobs.to(target.device), tokens, seconds, backend=target.backend) == budget
    assert moved > 3


def test_the_oracle_stops_where_a_draft_more_would_lower_the_rate() -> None:
    """Along the straight line from an end to the next; by quotients of doubles, which decide all but near-ties."""
    stops = 0
    for seed in range(300):
        case, costs = random_case(seed), random_costs(seed)
        if costs.rule != "first drop" or costs.min_gain:
            continue
        sums = sums_of(case)
        tokens, requests = costs.of(case.logprobs.shape[0])
        ends = [(t, s) for t, s in zip(tokens, costs.seconds, strict=True) if t >= requests]
        expected: int | None = ends[-1][0] - requests if ends else 0
        for (t, s), (u, z) in itertools.pairwise(ends):
            here, there = (requests + oracle_budgeting.at(sums, t - requests + i) / 65536 for i in (0, 1))
            rate, further = here / s, there / (s + (z - s) / (u - t))
            if further < rate * (1 + 1e-6):
                expected = t - requests if further <= rate else None
                stops += 1
                break
        if expected is not None:
            assert oracle_budgeting.choose(sums, tokens, costs.seconds, requests) == expected
    assert stops > 30
