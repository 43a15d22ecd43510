"""The layout of ragged batches against loops."""

from __future__ import annotations

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


@pytest.mark.parametrize(("starts", "counts"), CASES, ids=str)
def test_parts(starts, counts):
    laid = layout(starts, counts)
    tokens = [(r, starts[r] + j) for r in range(len(counts)) for j in range(counts[r])]
    slots, seen = [], set()
    for part in laid.parts:
        rows = range(len(counts)) if part.row is None else [part.row]
        assert part.tokens.shape[0] == len(rows)
        here = []
        for row, of_row in zip(rows, part.tokens.tolist(), strict=True):
            for token in of_row:
                slots.append(token)
                # Where a request has no token, the slot repeats one: of its own if it has any.
                if tokens[token][0] == row and token not in seen:
                    seen.add(token)
                    here.append(tokens[token][1])
        assert part.context == max(here) + 1
        assert part.sees_all == (part.tokens.shape[1] == 1 and len(set(here)) == 1)
    assert seen == set(range(len(tokens))), "every token has its slot"
    at = (laid.row + laid.slot).tolist()
    assert [slots[i] for i in at] == list(range(len(tokens)))


def shapes(counts, starts=None):
    return [(part.row, *part.tokens.shape) for part in layout(starts or [9] * len(counts), counts).parts]


def test_few_long_requests_do_not_make_the_others_long():
    assert shapes([2] * 14 + [30, 9]) == [(None, 16, 2), (14, 1, 28), (15, 1, 7)]
    assert shapes([2] * 15 + [4]) == [(None, 16, 2), (15, 1, 2)]
    assert shapes([2] * 15 + [3]) == [(None, 16, 3)], "as cheap, in one call"
    assert [part.context for part in layout([9] * 16, [2] * 15 + [30]).parts] == [11, 39]


def test_prompts_of_many_lengths_are_read_one_by_one():
    assert shapes([30, 1, 12, 90]) == [(0, 1, 30), (1, 1, 1), (2, 1, 12), (3, 1, 90)]


def test_elsewhere_a_call_is_a_launch(monkeypatch):
    monkeypatch.setattr(ragged, "ALONE", {})
    assert shapes([2] * 14 + [30, 9]) == [(None, 16, 30)]
    assert shapes([0] * 15 + [90]) == [(15, 1, 90)], "but a prompt is read alone"


def test_a_prompt_is_read_alone():
    [part] = layout([50] * 15 + [0], [0] * 15 + [40]).parts
    assert part.row == 15 and part.context == 40
    assert torch.equal(part.tokens, torch.arange(40)[None])
