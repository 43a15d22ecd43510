"""The inputs of expected_accepts and choose_budget that every backend is checked on: batches of cases.py, and costs."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import oracle_budgeting
import torch
from cases import CASES, INF, NAN, Case, certain, coarse, lens, peaked, whole
from conftest import POISON
from torch import Tensor

from tetris_kernels import choose_budget, expected_accepts

BY_NAME = {case.name: case for case in CASES}


def sums_of(case: Case) -> list[int]:
    """The oracle's sums by budget."""
    return oracle_budgeting.batch_sums(case.logprobs.tolist(), **{name: t.tolist() for name, t in case.rows.items()})


def check_fresh(output: Tensor, case: Case) -> None:
    """On the case's device; fresh memory, and nothing written beside it."""
    assert type(output) is Tensor and output.device == case.logprobs.device and output.is_contiguous()
    inputs = {t.untyped_storage().data_ptr() for t in (case.logprobs, *case.rows.values())}
    assert output.untyped_storage().data_ptr() not in inputs or output.numel() == 0
    start, around = output.storage_offset(), whole(output)
    assert (torch.cat([around[:start], around[start + output.numel() :]]) == POISON).all()


def check_expected(case: Case, budgets: Tensor, sums: list[int], backend: str) -> None:
    """`case` and `budgets` are on the device; bit for bit."""
    found = expected_accepts(case.logprobs, budgets, **case.rows, backend=backend)
    assert found.dtype == torch.float32 and found.shape == budgets.shape
    assert found.tolist() == oracle_budgeting.expected(sums, budgets.tolist()), case.name
    check_fresh(found, case)


@dataclass(frozen=True)
class Costs:
    """What verifications cost; tokens are counted from the number of requests on."""

    name: str
    tokens: list[int]
    seconds: list[float]
    requests: int | None = None  # None: N
    rule: str = "first drop"
    min_gain: float = 0.0

    def of(self, num_requests: int) -> tuple[list[int], int]:
        """Tokens, and how many of them are requests'."""
        return [t + num_requests for t in self.tokens], num_requests if self.requests is None else self.requests


def check_choice(case: Case, costs: Costs, sums: list[int], backend: str, kind: str = "int") -> int:
    """`case` is on the device; kind: see REQUESTS."""
    device = case.logprobs.device
    tokens, requests = costs.of(case.logprobs.shape[0])
    seconds = torch.tensor(costs.seconds, device=device)
    wide = max(map(abs, tokens)) >= 2**31
    ends = torch.tensor(tokens, device=device, dtype=torch.int64 if wide else torch.int32)
    if not 0 <= requests < 2**31:
        kind = "0-d int64"  # which alone can be that
    found = choose_budget(
        case.logprobs,
        ends,
        seconds,
        requests=None if costs.requests is None else REQUESTS[kind](requests, device),
        rule=costs.rule,
        greedy=costs.rule == "argmax",
        min_gain=costs.min_gain,
        **case.rows,
        backend=backend,
    )
    expected = oracle_budgeting.choose(sums, tokens, seconds.tolist(), requests, costs.rule, costs.min_gain)
    assert found.dtype == torch.int32 and found.shape == ()
    assert found.tolist() == expected, (case.name, costs.name)
    check_fresh(found, case)
    return expected


# What `requests` can be.
REQUESTS: dict[str, Callable[[int, Any], Any]] = {
    "int": lambda value, device: value,
    "0-d int64": lambda value, device: torch.tensor(value, device=device),
    "[1] int32": lambda value, device: torch.tensor([value], dtype=torch.int32, device=device),
    "odd element": lambda value, device: torch.tensor([7, value, 7], dtype=torch.int32, device=device)[1],
    "stride 0": lambda value, device: torch.tensor(value, device=device).expand(1, 1),
}

BUCKETS = [0, 1, 2, 4, 8, 16, 32]
STEPS = [1.0, 1.05, 1.1, 1.2, 1.5, 2.1, 4.0]
SOUND = [
    Costs("buckets", BUCKETS, STEPS),
    Costs("every size", list(range(40)), [1 + 0.01 * i + 0.002 * i * i for i in range(40)]),
    Costs("a line", BUCKETS, [1 + 0.1 * t for t in BUCKETS]),
    Costs("a staircase", [0, 3, 4, 11, 12, 30], [1.0, 1.0, 1.6, 1.6, 2.4, 2.4]),
    Costs("a cliff, then flat", [0, 4, 8, 30], [1.0, 1.9, 1.91, 1.92]),
    Costs("flat", BUCKETS, [1.0] * 7),
    Costs("steep", BUCKETS, [2.0**t for t in BUCKETS]),
    Costs("from two drafts on", BUCKETS[2:], STEPS[2:]),
    Costs("one end", [5], [1.0]),
    Costs("one end without room", [-1], [1.0]),
    Costs("ends below the requests", [-3, -1, *BUCKETS], [0.8, 0.9, *STEPS]),
    Costs("no requests", BUCKETS, STEPS, requests=0),
    Costs("fewer requests than rows", BUCKETS, STEPS, requests=1),
    Costs("more requests than rows", BUCKETS, STEPS, requests=9),
    Costs("no end holds the requests", BUCKETS, STEPS, requests=10**6),
    Costs("a gain of a tenth", BUCKETS, STEPS, min_gain=0.1),
    Costs("a gain of a hundred", BUCKETS, STEPS, min_gain=100.0),
    Costs("a gain beyond float32", BUCKETS, STEPS, min_gain=1e300),
    Costs("a gain that float32 rounds", BUCKETS, [1 + 0.1 * t for t in BUCKETS], min_gain=0.1 + 2.0**-26),
    Costs("64 ends", list(range(64)), [1 + 0.03 * i for i in range(64)]),
]
# What the host cannot see: the result is the budget of an end, or 0.
UNSOUND = [
    Costs("descending tokens", BUCKETS[::-1], STEPS),
    Costs("tokens up and down", [4, -2, 9, 1, 20], [1.0, 1.1, 1.2, 1.3, 1.4]),
    Costs("equal tokens", [3, 3, 3, 5], [1.0, 1.1, 1.2, 1.3]),
    Costs("negative tokens", [-10, -9, -8], [1.0, 1.1, 1.2]),
    Costs("descending seconds", BUCKETS, STEPS[::-1]),
    Costs("no seconds", BUCKETS, [0.0] * 7),
    Costs("negative seconds", BUCKETS, [-s for s in STEPS]),
    Costs("NaN at first", BUCKETS, [NAN, *STEPS[1:]]),
    Costs("NaN on the way", BUCKETS, [*STEPS[:2], NAN, *STEPS[3:]]),
    Costs("all NaN", BUCKETS, [NAN] * 7),
    Costs("infinities", BUCKETS, [1.0, 1.0, 1.0, INF, INF, INF, -INF]),
    Costs("huge seconds", BUCKETS, [3e38 * s / 4 for s in STEPS]),
    Costs("extreme tokens", [-(2**62), -(2**31), 0, 2**31 - 1, 2**31, 2**33, 2**62], STEPS),
    Costs("negative requests", BUCKETS, STEPS, requests=-5),
    Costs("extreme requests", [0, 2**30, 2**40], STEPS[:3], requests=2**40),
]
COSTS = SOUND + UNSOUND
COSTS += [Costs(f"{c.name}, argmax", c.tokens, c.seconds, c.requests, "argmax", c.min_gain) for c in COSTS]

# Batches for all costs.
BATCHES = [
    BY_NAME["distinct"],
    BY_NAME["all certain"],
    BY_NAME["all impossible"],
    BY_NAME["ragged, floors, ceilings, weights"],
    Case("coarse", coarse(4, 6)),
    Case("likely", peaked(5, 8) * 0.05, draft_lens=lens([8, 8, 3, 0, 5])),
]


def random_costs(seed: int) -> Costs:
    """Seeded ends, ascending, of costs that ascend by steps or evenly; any rule."""
    rng = random.Random(seed)
    size = rng.choice([1, 2, 5, 9, 20])
    tokens, seconds, cost = [], [], 1.0
    at = rng.randint(-4, 4)
    for _ in range(size):
        tokens.append(at)
        seconds.append(cost)
        at += rng.randint(1, 7)
        cost += rng.choice([0.0, 0.01, 0.1, rng.random()])
    rule = rng.choice(["first drop", "first drop", "argmax"])
    return Costs(f"seed {seed}", tokens, seconds, rng.choice([None, None, 0, 3]), rule, rng.choice([0.0, 0.02]))


def large(n: int, k: int) -> Case:
    """A batch with all arguments, of which no two budgets give the same."""
    floors = torch.arange(n) % 3
    weights = torch.linspace(-2, 2, n)
    return Case(f"{n}x{k}", certain(n, k, seed=n), k - floors, (floors == 2).int(), k - floors.flip(0), weights)
