"""No request waits longer than the bound of `waiting_weights`; without them some wait for ever."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

import pytest
import torch
from oracle_preferences import longest_wait
from torch import Tensor

from tetris_kernels import select, update_waited, waiting_weights


def played(batches: Iterator[Tensor], budget: int, nats_per_step: float, **options: Tensor) -> list[list[int]]:
    """The counts of all requests after each step."""
    counts, waited = [], None
    for logprobs in batches:
        waited = torch.zeros(len(logprobs), dtype=torch.int32) if waited is None else waited
        weights = waiting_weights(waited, nats_per_step=nats_per_step)
        waited = update_waited(waited, select(logprobs, budget, log_weights=weights, **options).lens)
        counts.append(waited.tolist())
    return counts


def with_an_unlikely_request(survival: float, steps: int = 300) -> Iterator[Tensor]:
    """7 requests of likely drafts, more than the budget of 12, and request 0, which is never as likely."""
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        probs = 0.8 + 0.2 * torch.rand(8, 4, generator=generator)
        probs[0] = survival
        yield probs.log()


def test_tetris_never_verifies_an_unlikely_request():
    counts = played(with_an_unlikely_request(0.01), budget=12, nats_per_step=0.0)
    assert counts[-1] == [300, *counts[-1][1:]] and max(counts[-1][1:]) < 10


@pytest.mark.parametrize("nats_per_step", [0.02, 0.1, 0.5, 3.0])
@pytest.mark.parametrize("survival", [0.01, 1e-9, 0.0])
def test_waiting_weights_verify_it_within_the_bound(survival, nats_per_step):
    cost = -math.log(survival) if survival else math.inf
    bound = longest_wait(cost, nats_per_step, num_requests=8, num_drafts=4, budget=12)
    assert nats_per_step * bound <= 500, "a case that the bound covers"
    waits = [step[0] for step in played(with_an_unlikely_request(survival, 2 * bound + 2), 12, nats_per_step)]
    assert 0 < max(waits) <= bound
    assert waits.count(0) >= 2, "it is verified again and again"


def longest_and_bound(seed: int) -> tuple[int, int]:
    """The longest wait of a batch of any kind, with requests that join, and its bound."""
    rng = random.Random(seed)
    num_requests, num_drafts = rng.randint(1, 12), rng.randint(1, 5)
    budget = rng.choice([1, 2, rng.randint(1, num_requests * num_drafts)])
    nats_per_step = rng.choice([0.05, 0.3, 1.0, 4.0])
    worst = rng.choice([0.0, 0.5, 3.0, 20.0])
    # What all have in common, or what most have: ties, certain drafts, and one request that is always the worst.
    costs = rng.choice([[0.0], [worst], [0.0, 0.0, worst], [worst * rng.random() for _ in range(4)]])
    bound = longest_wait(worst, nats_per_step, num_requests, num_drafts, budget)
    assert nats_per_step * bound <= 500, "a case that the bound covers"
    waited, longest = torch.zeros(num_requests, dtype=torch.int32), 0
    for _ in range(3 * bound + 20):
        first = torch.tensor([[rng.choice(costs)] for _ in range(num_requests)])
        first[-1] = worst
        later = torch.tensor([[rng.choice([0.0, 0.1, 9.0]) for _ in range(num_drafts)] for _ in range(num_requests)])
        logprobs = -torch.cat([first, later[:, 1:]], 1)
        weights = waiting_weights(waited, nats_per_step=nats_per_step)
        waited = update_waited(waited, select(logprobs, budget, log_weights=weights).lens)
        longest = max(longest, *waited.tolist())
        if rng.random() < 0.1:
            waited[rng.randrange(num_requests)] = 0  # another request takes the row
    return longest, bound


@pytest.mark.parametrize("seed", range(40))
def test_nobody_waits_longer_than_the_bound(seed):
    longest, bound = longest_and_bound(seed)
    assert longest <= bound


def test_the_bound_is_nearly_reached():
    """One draft a step for 9 requests of equal drafts: each waits for the 8 others."""
    counts = played(iter([torch.zeros(9, 1)] * 60), budget=1, nats_per_step=1.0)
    assert max(map(max, counts)) == longest_wait(0.0, 1.0, 9, 1, 1) - 1 == 8


def test_other_weights_count_by_as_much_as_they_differ():
    """Request 0 has 5 nats less than the others, which are certain: it waits as one whose drafts cost 5 nats."""
    weights = torch.tensor([-5.0, 0.0, 0.0, 0.0])
    waited, longest = torch.zeros(4, dtype=torch.int32), 0
    for _ in range(100):
        lens = select(torch.zeros(4, 2), 2, log_weights=weights + waiting_weights(waited, nats_per_step=0.25)).lens
        waited = update_waited(waited, lens)
        longest = max(longest, int(waited[0]))
    assert 5 / 0.25 - 4 <= longest <= longest_wait(5.0, 0.25, 4, 2, 2)


def test_a_request_without_drafts_does_not_come_first_when_it_has_some_again():
    waited, draft_lens = torch.tensor([3, 0], dtype=torch.int32), torch.tensor([0, 2])
    for _ in range(50):
        picked = select(torch.zeros(2, 2), 1, draft_lens=draft_lens)
        waited = update_waited(waited, picked.lens, draft_lens)
    assert waited.tolist() == [3, 0]
