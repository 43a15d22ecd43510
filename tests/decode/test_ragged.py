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
]


def layout(starts, counts, spare=0):
    return Ragged(pieces([range(100)] * len(starts), starts, counts, spare))


@pytest.mark.parametrize("spare", [0, 5])
@pytest.mark.parametrize(("starts", "counts"), CASES, ids=str)
def test_layout(starts, counts, spare):
    ragged = layout(starts, counts, spare)
    tokens = [(r, starts[r] + j) for r in range(len(counts)) for j in range(counts[r])]
    assert list(zip(ragged.request.tolist(), ragged.position.tolist(), strict=True)) == tokens
    assert ragged.packed.input_ids.tolist() == [position for _, position in tokens], "no padding"
    assert ragged.packed.request_ids.tolist() == [request for request, _ in tokens]
    assert ragged.context == max(position for _, position in tokens) + 1
    assert ragged.is_padded == (len(set(counts)) == 1)
    assert ragged.sees_all == (max(counts) == 1 and len({position for _, position in tokens}) == 1)

    padded = ragged.token_of_slot
    assert padded.shape == (len(counts), max(counts))
    for r, count in enumerate(counts):
        for j in range(max(counts)):
            if count:
                assert tokens[padded[r, j]] == (r, starts[r] + min(j, count - 1))
            assert 0 <= padded[r, j] < len(tokens)
        if count:
            assert tokens[ragged.last_token[r]] == (r, starts[r] + count - 1)


@pytest.mark.parametrize(("starts", "counts"), CASES, ids=str)
def test_slots_lead_back(starts, counts):
    ragged = layout(starts, counts)
    values = torch.randn(sum(counts), 2, 3)
    padded = ragged.padded(values)
    assert padded.shape == (len(counts), max(counts), 2, 3)
    assert torch.equal(padded.flatten(0, 1)[ragged.slot_of_token], values)
