"""Policies: how many drafts are asked for and verified."""

from __future__ import annotations

import pytest
import torch

from tetris_decode.drafting import Drafts
from tetris_decode.policies import NO_SPECULATION, FixedLength, Tetris
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
