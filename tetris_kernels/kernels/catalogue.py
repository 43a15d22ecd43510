"""Every compilation that the library can ask for: what `warmup` compiles, and the compile tests go through."""

from __future__ import annotations

from collections.abc import Collection

import torch

from tetris_kernels.kernels import selection
from tetris_kernels.kernels.variant import Variant

STAGES = (selection,)


def variants() -> list[Variant]:
    """All variants of all stages."""
    return [variant for stage in STAGES for variant in stage.variants()]


def warmup(device: torch.device, dtypes: Collection[torch.dtype], max_requests: int, max_drafts: int) -> int:
    """Compile and load what batches of these dtypes and sizes can ask for; how many variants that is."""
    return sum(stage.warmup(device, dtypes, max_requests, max_drafts) for stage in STAGES)
