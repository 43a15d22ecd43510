"""The layout of ragged batches against loops."""

from __future__ import annotations

import pytest
import torch
from pieces import pieces

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
# Two parts, and one part of some requests.
SPLIT = {str(CASES[-3]): 2, str(CASES[-2]): 2, str(CASES[-1]): 1}


def layout(starts, counts, spare=0):
    return Ragged(pieces([range(100)] * len(starts), starts, counts, spare))


@pytest.mark.parametrize("spare", [0, 5])
@pytest.mark.parametrize(("starts", "counts"), CASES, ids=str)
def test_tokens(starts, counts, spare):
    ragged = layout(starts, counts, spare)
    tokens = [(r, starts[r] + j) for r in range(len(counts)) for j in range(counts[r])]
    assert list(zip(ragged.request.tolist(), ragged.position.tolist(), strict=True)) == tokens
    assert ragged.packed.input_ids.tolist() == [position for _, position in tokens], "no padding"
    assert ragged.packed.request_ids.tolist() == [request for request, _ in tokens]
    assert ragged.is_padded == (len(set(counts)) == 1)
    for r, count in enumerate(counts):
        assert 0 <= ragged.last_token[r] < len(tokens)
        if count:
            assert tokens[ragged.last_token[r]] == (r, starts[r] + count - 1)


@pytest.mark.parametrize(("starts", "counts"), CASES, ids=str)
def test_parts(starts, counts):
    ragged = layout(starts, counts)
    assert len(ragged.parts) == SPLIT.get(str((starts, counts)), len(ragged.parts))
    tokens = [(r, starts[r] + j) for r in range(len(counts)) for j in range(counts[r])]
    slots, seen = [], set()
    for part in ragged.parts:
        rows = range(len(counts)) if part.rows is None else part.rows.tolist()
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
    at = (ragged.row + ragged.slot).tolist()
    assert [slots[i] for i in at] == list(range(len(tokens)))


def test_few_long_requests_do_not_make_the_others_long():
    ragged = layout([9] * 16, [2] * 14 + [30, 9])
    assert [tuple(part.tokens.shape) for part in ragged.parts] == [(16, 2), (2, 28)]
    assert ragged.parts[1].rows.tolist() == [14, 15] and ragged.parts[1].context == 39
    assert ragged.parts[0].context == 11
    assert [tuple(part.tokens.shape) for part in layout([9] * 16, [2] * 14 + [3, 2]).parts] == [(16, 3)]


def test_a_prompt_is_read_alone():
    parts = layout([50] * 15 + [0], [0] * 15 + [40]).parts
    assert [tuple(part.tokens.shape) for part in parts] == [(1, 40)]
    assert parts[0].rows.tolist() == [15] and parts[0].context == 40
    assert torch.equal(parts[0].tokens, torch.arange(40)[None])
