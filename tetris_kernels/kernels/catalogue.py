"""Every compilation that the library can ask for: what `warmup` compiles, and the compile tests go through."""

from __future__ import annotations

from collections.abc import Collection

import torch

from tetris_kernels.kernels import acceptance, budgeting, expectation, packing, scoring, selection
from tetris_kernels.kernels.variant import Variant

STAGES = (scoring, selection, expectation, budgeting, packing, acceptance)


def variants() -> list[Variant]:
    """All variants of all stages."""
    return [variant for stage in STAGES for variant in stage.variants()]


def warmup(device: torch.device, dtypes: Collection[torch.dtype], max_requests: int, max_drafts: int) -> int:
    """Compile and load what batches of these dtypes and sizes can ask for; how many variants that is."""
    # Scores are float32, whatever the logits are.
    dtypes_of = {selection: {*dtypes, torch.float32}}
    return sum(stage.warmup(device, dtypes_of.get(stage, dtypes), max_requests, max_drafts) for stage in STAGES)
