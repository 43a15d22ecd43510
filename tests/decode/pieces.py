"""Pieces of token rows as packed batches."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tetris_kernels import PackedBatch, Selection, pack


def pieces(rows: Sequence[Sequence[int]], starts: Sequence[int], counts: Sequence[int], spare: int = 0) -> PackedBatch:
    """`rows[r][starts[r] : starts[r] + counts[r]]` of each request, and `spare` slots of padding."""
    cut = [list(row[start : start + count]) or [0] for row, start, count in zip(rows, starts, counts, strict=True)]
    width = max(map(len, cut))
    ids = torch.tensor([[*piece, *[0] * (width - len(piece))] for piece in cut])
    lens = torch.tensor([len(piece) - 1 for piece in cut], dtype=torch.int32)
    context_lens = torch.tensor([start if count else -1 for start, count in zip(starts, counts, strict=True)])
    return pack(Selection.from_lens(lens), ids[:, 1:], ids[:, 0], context_lens, capacity=sum(counts) + spare)
