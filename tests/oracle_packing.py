"""The contract of `pack` in lists: what every backend is checked against."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any


def usable(draft_ids: Sequence[Sequence[int]], draft_lens: Sequence[int] | None = None) -> list[int]:
    """How many drafts of each request are real."""
    if draft_lens is None:
        return [len(row) for row in draft_ids]
    return [min(max(draft_lens[r], 0), len(row)) for r, row in enumerate(draft_ids)]


def tokens(
    lens: Sequence[int],
    draft_ids: Sequence[Sequence[int]],
    anchor_ids: Sequence[int],
    context_lens: Sequence[int],
    draft_lens: Sequence[int] | None = None,
) -> list[tuple[int, int, int]]:
    """(token, position, request) of everything there is to pack."""
    available = usable(draft_ids, draft_lens)
    found = []
    for r, row in enumerate(draft_ids):
        if context_lens[r] >= 0:
            ids = [anchor_ids[r], *row[: min(max(lens[r], 0), available[r])]]
            found += [(token, context_lens[r] + j, r) for j, token in enumerate(ids)]
    return found


def pack(
    lens: Sequence[int],
    draft_ids: Sequence[Sequence[int]],
    anchor_ids: Sequence[int],
    context_lens: Sequence[int],
    capacity: int,
    draft_lens: Sequence[int] | None = None,
    pad_id: int = 0,
) -> dict[str, Any]:
    """The fields of a PackedBatch: the tokens are listed one by one, then cut, then counted."""
    everything = tokens(lens, draft_ids, anchor_ids, context_lens, draft_lens)
    kept = everything[:capacity]
    sizes = Counter(r for _, _, r in kept)
    slots = kept + [(pad_id, 0, -1)] * (capacity - len(kept))
    cu_seqlens = [0]
    for r in range(len(draft_ids)):
        cu_seqlens.append(cu_seqlens[-1] + sizes[r])
    return {
        "input_ids": [token for token, _, _ in slots],
        "position_ids": [position for _, position, _ in slots],
        "request_ids": [r for _, _, r in slots],
        "cu_seqlens": cu_seqlens,
        "lens": [max(sizes[r] - 1, 0) for r in range(len(draft_ids))],
        "draft_lens": usable(draft_ids, draft_lens),
        "overflow": len(everything) > capacity,
    }
