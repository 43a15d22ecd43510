"""Steps for calibration: rows as `accept` makes them, and what the oracle counts of them."""

from __future__ import annotations

import math
from typing import Any

import oracle_calibration as oracle
import torch
from oracle_calibration import Row
from torch import Tensor

from tetris_kernels.reference import calibration as reference

EDGES = [0.0, -1e-9, -1e-7, -6e-8, -1e-4, -0.01, -0.5, -math.log(2), -1.0, -5.0, -15.9, -16.0, -16.1, -80.0]
EDGES += [-math.inf, 0.5]


def columns(rows: list[Row], scores: Tensor | None = None) -> dict[str, Any]:
    """The arguments of `update`, of a step of these rows."""
    return {
        "scores": torch.tensor([row.scores for row in rows]) if scores is None else scores,
        "lens": torch.tensor([row.length for row in rows], dtype=torch.int64),
        "counts": torch.tensor([row.count for row in rows], dtype=torch.int32),
        "coupled": torch.tensor([row.coupled for row in rows], dtype=torch.bool),
        "draft_lens": torch.tensor([row.draft_length for row in rows], dtype=torch.int64),
    }


def random_rows(seed: int, num_rows: int, num_drafts: int) -> list[Row]:
    """Rows as accept makes them, of requests that accept each draft with a probability that says their score."""
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for _ in range(num_rows):
        scores = torch.rand(num_drafts, generator=generator).pow(0.5).log().tolist()
        draft_length = int(torch.randint(num_drafts + 1, (), generator=generator))
        length = int(torch.randint(draft_length + 1, (), generator=generator))
        passed = 0
        while passed < draft_length and torch.rand((), generator=generator) < math.exp(scores[passed]):
            passed += 1
        sits_out = bool(torch.rand((), generator=generator) < 0.1)
        count = 0 if sits_out else min(passed, length) + 1
        rows.append(Row(scores, length, count, passed > length and not sits_out, draft_length))
    return rows


def counted(rows: list[Row], num_drafts: int, bonus: str = "coupled") -> list[list[list[int]]]:
    """[2, K, bins] of the oracle."""
    cells = [[[0] * reference.NUM_BINS for _ in range(num_drafts)] for _ in range(2)]
    for row in rows:
        for position, value, accepted in oracle.tested(row, bonus):
            cells[accepted][position][oracle.bin_of(value)] += 1
    return cells
