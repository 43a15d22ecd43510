"""The layout of ragged batches against loops."""

from __future__ import annotations

import itertools

import pytest
import torch
from pieces import pieces

from tetris_decode import ragged
from tetris_decode.ragged import Ragged

CASES = [
    ([0, 0, 0], [1, 1, 1]),
    ([4, 4, 4], [1, 0, 1]),
    ([4, 0, 7], [3, 1, 2]),
    ([4, 2, 7], [0, 5, 0]),
    ([4, 2, 7], [2, 0, 1]),
    ([9], [4]),
    ([3, 1], [0, 1]),
    ([5, 9, 2, 0, 7, 7, 3, 1, 1, 1, 1, 1], [1, 2, 1, 2, 30, 1, 2, 29, 0, 1, 1, 1]),
    ([0, 50, 60, 70, 80, 90], [40, 1, 1, 1, 1, 1]),
    ([0, 50, 60, 70, 80, 90], [0, 0, 40, 0, 0, 0]),
]


def layout(starts, counts, spare=0):
    return Ragged(pieces([range(100)] * len(starts), starts, counts, spare))


@pytest.mark.parametrize("spare", [0, 5])
@pytest.mark.parametrize(("starts", "counts"), CASES, ids=str)
def test_tokens(starts, counts, spare):
    laid = layout(starts, counts, spare)
    tokens = [(r, starts[r] + j) for r in range(len(counts)) for j in range(counts[r])]
    assert list(zip(laid.request.tolist(), laid.position.tolist(), strict=True)) == tokens
    assert laid.packed.input_ids.tolist() == [position for _, position in tokens], "no padding"
    assert laid.packed.request_ids.tolist() == [request for request, _ in tokens]
    for r, count in enumerate(counts):
        assert 0 <= laid.last_token[r] < len(tokens)
        if count:
            assert tokens[laid.last_token[r]] == (r, starts[r] + count - 1)


@pytest.mark.parametrize("call", [0, 8, 1000])
@pytest.mark.parametrize(("starts", "counts"), CASES, ids=str)
def test_parts(monkeypatch, starts, counts, call):
    """Every token has one slot of its request, and `base`, `stride` and `slot` lead to it, with heads between too."""
    monkeypatch.setitem(ragged.CALL, "cpu", call)
    laid = layout(starts, counts)
    tokens = [(r, starts[r] + j) for r in range(len(counts)) for j in range(counts[r])]
    heads, place = 3, {}
    written = 0
    for part in laid.parts:
        rows = range(len(counts))[part.rows]
        assert part.tokens.shape[0] == len(rows) and part.tokens.shape[1] == max(counts[r] for r in rows)
        for row, of_row in zip(rows, part.tokens.tolist(), strict=True):
            for head in range(heads):
                for slot, token in enumerate(of_row):
                    assert 0 <= token < len(tokens)
                    if slot < counts[row]:
                        assert tokens[token] == (row, starts[row] + slot)
                        place[token, head] = written
                    written += 1
        ends = [starts[r] + counts[r] for r in rows if counts[r]]
        assert part.context == max(ends)
        assert part.sees_all == (part.tokens.shape[1] == 1 and len(set(ends)) == 1)
    found = laid.base[:, None] * heads + laid.stride[:, None] * torch.arange(heads) + laid.slot[:, None]
    assert {(t, h): int(found[t, h]) for t in range(len(tokens)) for h in range(heads)} == place


def shapes(counts):
    return sorted((p.rows.start, p.rows.stop, p.tokens.shape[1]) for p in layout([9] * len(counts), counts).parts)


def test_few_long_requests_do_not_make_the_others_long():
    assert shapes([2] * 16) == [(0, 16, 2)]
    assert shapes([2] * 8 + [30] + [2] * 7) == [(0, 8, 2), (8, 9, 30), (9, 16, 2)]
    assert shapes([1] * 8 + [3] * 8) == [(0, 8, 1), (8, 16, 3)]
    assert shapes([2, 3] * 8) == [(0, 16, 3)], "a call costs more than a slot"


def test_prompts_of_many_lengths_are_read_one_by_one():
    assert shapes([30, 1, 12, 90]) == [(0, 1, 30), (1, 2, 1), (2, 3, 12), (3, 4, 90)]


def test_absent_requests_cost_nothing():
    assert shapes([0] * 7 + [40] + [0] * 8) == [(7, 8, 40)]
    assert shapes([0] * 15 + [1]) == [(15, 16, 1)]


def test_elsewhere_a_call_is_a_launch(monkeypatch):
    monkeypatch.setattr(ragged, "CALL", {})
    assert shapes([2] * 14 + [30, 9]) == [(0, 16, 30)]
    assert shapes([0] * 15 + [90]) == [(15, 16, 90)]


@pytest.mark.parametrize("seed", range(20))
def test_no_cut_is_cheaper(seed):
    """Against all cuts of eight requests."""
    counts = torch.randint(0, 6, (8,), generator=torch.Generator().manual_seed(seed)).tolist()

    def cost(bounds):
        pieces = [counts[a:b] for a, b in itertools.pairwise((0, *bounds, 8))]
        return sum(len(p) * (max(p) + ragged.PASS) + ragged.CALL["cpu"] for p in pieces if max(p))

    cuts = (c for n in range(8) for c in itertools.combinations(range(1, 8), n))
    got = sum((b - a) * (most + ragged.PASS) + ragged.CALL["cpu"] for a, b, most in shapes(counts))
    assert got == min(map(cost, cuts))
