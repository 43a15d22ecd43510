"""What floors and weights do for deadlines: requests whose drafts come true by chance, step by step."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

import pytest
import torch

from tetris_kernels import deadline_preferences, select

REQUESTS, DRAFTS, BUDGET, STEPS, TOKENS = 16, 6, 24, 100, 120
# Of all requests: those with a deadline are those whose drafts are accepted less often.
TIGHT, TIGHT_RATE, RATE = 4, 0.6, 0.75


@dataclass
class Played:
    """late: steps by which each of the tight requests missed its deadline. tokens: in all, of a request and step."""

    late: list[float]
    tokens: float

    @property
    def met(self) -> int:
        return sum(late <= 0 for late in self.late)


def played(seed: int, goal: float, *, told: bool = True, **options: Any) -> Played:
    """Tight requests must have their tokens within `goal` steps of a second; whether `select` is told."""
    rng = random.Random(seed)
    rates = [TIGHT_RATE] * TIGHT + [RATE] * (REQUESTS - TIGHT)
    deadlines = torch.tensor([goal] * TIGHT + [torch.inf] * (REQUESTS - TIGHT))
    left = torch.full((REQUESTS,), TOKENS)
    tested = torch.full((REQUESTS,), 2.0)
    accepted = tested * 0.7
    ends = torch.full((REQUESTS,), torch.inf)
    emitted = 0
    for step in range(STEPS):
        true = torch.tensor([[rng.betavariate(2 * a, 2 - 2 * a) for _ in range(DRAFTS)] for a in rates])
        comes_true = torch.tensor([[rng.random() for _ in range(DRAFTS)] for _ in rates]) < true
        wanted = deadline_preferences(
            left,
            deadlines - step if told else torch.full_like(deadlines, torch.inf),
            accepted / tested,
            step_seconds=1,
            num_drafts=DRAFTS,
            **options,
        )
        lens = select(true.log(), BUDGET, min_lens=wanted.min_lens, log_weights=wanted.log_weights).lens
        passed = torch.minimum(comes_true.long().cumprod(1).sum(1), lens)
        accepted += passed
        tested += passed + (passed < lens)
        left = left - passed - 1
        emitted += int(passed.sum()) + REQUESTS
        ends = torch.where((left <= 0) & ends.isinf(), torch.tensor(step + 1.0), ends)
    return Played((ends - deadlines)[:TIGHT].tolist(), emitted / STEPS / REQUESTS)


SEEDS = range(3)


@pytest.mark.parametrize("seed", SEEDS)
def test_deadlines_that_are_missed_are_met_with_preferences(seed):
    without, with_them = played(seed, TOKENS / 1.8, told=False), played(seed, TOKENS / 1.8)
    assert without.met == 0 and with_them.met == TIGHT
    # What those with deadlines get, the others would have done more with.
    assert 0.95 < with_them.tokens / without.tokens < 1


@pytest.mark.parametrize("seed", SEEDS)
def test_deadlines_that_are_met_anyway_cost_little(seed):
    without, with_them = played(seed, TOKENS / 1.3, told=False), played(seed, TOKENS / 1.3)
    assert without.met == with_them.met == TIGHT
    assert 0.98 < with_them.tokens / without.tokens <= 1.005


@pytest.mark.parametrize("seed", SEEDS)
def test_what_is_out_of_reach_costs_little_unless_wanted(seed):
    """More tokens a step than all drafts yield: with "all" they take drafts from the others, and are late as well."""
    without, none, everything = (
        played(seed, TOKENS / 3.5, **options) for options in ({"told": False}, {}, {"out_of_reach": "all"})
    )
    assert without.met == none.met == everything.met == 0
    assert max(everything.late) < min(none.late), "but less late"
    assert none.tokens > 0.98 * without.tokens and everything.tokens < 0.9 * without.tokens
