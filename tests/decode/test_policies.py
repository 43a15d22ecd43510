"""Policies: how many drafts are asked for and verified."""

from __future__ import annotations

import itertools
import math
import random

import pytest
import torch

from tetris_decode.drafting import Drafts
from tetris_decode.policies import NO_SPECULATION, FixedLength, Oracle, Tetris, Threshold
from tetris_kernels import select


def drafts(num_requests=4, num_drafts=6, lens=None):
    generator = torch.Generator().manual_seed(0)
    shape = num_requests, num_drafts
    logprobs = torch.rand(shape, generator=generator).log()
    ids = torch.randint(50, shape, generator=generator)
    return Drafts(ids, logprobs, torch.full((num_requests,), num_drafts) if lens is None else torch.tensor(lens))


@pytest.mark.parametrize(
    ("lens", "expected"), [(None, [3, 3, 3, 3]), ([0, 2, 6, 3], [0, 2, 3, 3]), ([0, 0, 0, 0], [0, 0, 0, 0])]
)
def test_fixed_length_takes_the_first_drafts_of_each(lens, expected):
    selection = FixedLength(3).select(drafts(lens=lens), 4)
    assert selection.lens.tolist() == expected
    assert selection.cu_lens.tolist() == [0, *torch.tensor(expected).cumsum(0).tolist()]
    assert (selection.lens.dtype, selection.cu_lens.dtype) == (torch.int32, torch.int32), "as select gives"


def test_no_speculation_wants_no_drafts():
    assert NO_SPECULATION.num_drafts(4) == 0
    assert NO_SPECULATION.select(Drafts.none(torch.zeros(4, 9)), 4).lens.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    ("per_request", "active", "budget"), [(1, 4, 4), (0.5, 4, 2), (0.5, 3, 2), (0.5, 1, 0), (0.1, 4, 0), (2.6, 4, 10)]
)
def test_budget_follows_the_running_requests(per_request, active, budget):
    policy = Tetris(per_request, 6)
    assert policy.budget(active) == budget
    assert policy.num_drafts(active) == (6 if budget else 0)
    assert policy.select(drafts(), active).lens.sum() == budget


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: FixedLength(-1), "length: expected 0 to 256 drafts, got -1"),
        (lambda: FixedLength(257), "length: expected 0 to 256 drafts, got 257"),
        (lambda: Tetris(1, 300), "length: expected 0 to 256 drafts, got 300"),
        (lambda: Tetris(-0.5, 4), r"drafts_per_request: expected a number from 0 on, got -0\.5"),
        (lambda: Tetris(float("nan"), 4), "drafts_per_request: expected a number from 0 on, got nan"),
        (lambda: Tetris(float("inf"), 4), "drafts_per_request: expected a number from 0 on, got inf"),
        (lambda: Oracle(1, 257), "length: expected 0 to 256 drafts, got 257"),
        (lambda: Oracle(-1, 4), "drafts_per_request: expected a number from 0 on, got -1"),
        (lambda: Threshold(0.5, -1), "length: expected 0 to 256 drafts, got -1"),
        (lambda: Threshold(-0.1, 4), r"confidence: expected a probability, got -0\.1"),
        (lambda: Threshold(1.1, 4), r"confidence: expected a probability, got 1\.1"),
        (lambda: Threshold(float("nan"), 4), "confidence: expected a probability, got nan"),
    ],
)
def test_bad_input(make, text):
    with pytest.raises(ValueError, match=text):
        make()


def test_tetris_is_select():
    weights, floors = torch.tensor([0.0, 2.0, 0.0, -1.0]), torch.tensor([1, 0, 0, 2])
    offered = drafts(lens=[6, 2, 4, 6])
    policy = Tetris(1.5, 6, min_lens=floors, log_weights=weights)
    expected = select(offered.logprobs, 6, draft_lens=offered.lens, min_lens=floors, log_weights=weights)
    assert policy.select(offered, 4).lens.tolist() == expected.lens.tolist()


def expected_accepted(rates, lens) -> float:
    """The sum of the products of acceptance rates, in a loop."""
    total = 0.0
    for row, n in zip(rates, lens, strict=True):
        survival = 1.0
        for rate in row[:n]:
            survival *= rate
            total += survival
    return total


@pytest.mark.parametrize("seed", range(30))
def test_an_oracle_is_the_best_of_all_choices(seed):
    """Theorem 1, by trying all prefixes within the budget; the drafter's own log-probs say something else."""
    rng = random.Random(seed)
    num_requests, num_drafts, budget = rng.randint(1, 3), rng.randint(1, 4), rng.randint(0, 8)
    rates = [[rng.choice([0.0, 1.0, rng.random()]) for _ in range(num_drafts)] for _ in range(num_requests)]
    lens = [rng.randint(0, num_drafts) for _ in rates]
    offered = drafts(num_requests, num_drafts, lens)._replace(acceptance=torch.tensor(rates))
    policy = Oracle(budget / num_requests, num_drafts)
    chosen = policy.select(offered, num_requests).lens.tolist()
    assert sum(chosen) == min(budget, sum(lens)) and all(n <= most for n, most in zip(chosen, lens, strict=True))
    choices = itertools.product(*(range(n + 1) for n in lens))
    best = max(expected_accepted(rates, choice) for choice in choices if sum(choice) <= budget)
    # A survival is told from another by 2^-16 nats a token.
    assert expected_accepted(rates, chosen) == pytest.approx(best, abs=16 * 2**-16)


def test_an_oracle_needs_to_know():
    with pytest.raises(ValueError, match="drafts: expected acceptance probabilities, which a simulation knows, got"):
        Oracle(1, 6).select(drafts(), 4)


def until_doubtful(logprobs, confidence, most) -> int:
    """In a loop: stop behind the first draft that is not at least as likely as `confidence`."""
    taken = 0
    for logprob in logprobs[:most]:
        taken += 1
        if not math.exp(logprob) >= confidence:
            break
    return taken


@pytest.mark.parametrize("confidence", [0.0, 0.25, 0.4, 0.75, 1.0])
@pytest.mark.parametrize("lens", [None, [6, 0, 3, 1], [0, 0, 0, 0]], ids=str)
def test_a_threshold_stops_behind_the_first_doubt(confidence, lens):
    offered = drafts(lens=lens)
    taken = Threshold(confidence, 6).select(offered, 4).lens.tolist()
    most = offered.lens.tolist()
    assert taken == [until_doubtful(row, confidence, n) for row, n in zip(offered.logprobs.tolist(), most, strict=True)]


@pytest.mark.parametrize(
    ("row", "confidence", "expected"),
    [
        ([0.0, 0.0, 0.0], 1.0, 3),  # certain
        ([-math.inf, 0.0, 0.0], 0.0, 3),  # nothing is less likely than 0
        ([-math.inf, 0.0, 0.0], 1e-9, 1),
        ([0.0, -math.inf, 0.0], 0.5, 2),
        ([math.nan, 0.0, 0.0], 0.5, 1),  # NaN is never accepted, as for select
        ([0.0, math.nan, 0.0], 0.0, 2),
        ([math.log(0.5)] * 3, 0.5, 3),  # not less likely
        ([math.log(0.3)] * 3, 0.5, 1),
        ([0.1, 0.1, -5.0], 1.0, 3),  # rounding above 1
    ],
    ids=str,
)
def test_a_threshold_at_the_edges(row, confidence, expected):
    logprobs = torch.tensor([row])
    offered = Drafts(torch.zeros(1, 3, dtype=torch.int64), logprobs, torch.tensor([3]))
    selection = Threshold(confidence, 3).select(offered, 1)
    assert selection.lens.tolist() == [expected] and selection.lens.dtype == torch.int32


def test_a_threshold_looks_at_no_slot_that_is_not_a_draft():
    logprobs = torch.tensor([[0.0, math.nan, -9.0], [-9.0, 0.0, 0.0]])
    offered = Drafts(torch.zeros(2, 3, dtype=torch.int64), logprobs, torch.tensor([1, 0]))
    assert Threshold(0.5, 3).select(offered, 1).lens.tolist() == [1, 0]


@pytest.mark.parametrize("policy", [FixedLength(3), Tetris(1, 3), Threshold(0.5, 3)], ids=str)
def test_no_drafts_at_all(policy):
    """As where the drafter is not asked."""
    selection = policy.select(Drafts.none(torch.zeros(4, 9)), 4)
    assert selection.lens.tolist() == [0] * 4 and selection.cu_lens.tolist() == [0] * 5
