"""Every compilation that the library can ask for: `warmup` and the tests go through this list."""

from __future__ import annotations

from tetris_kernels.kernels import selection
from tetris_kernels.kernels.variant import Variant


def variants() -> list[Variant]:
    """All variants of all stages."""
    return [*selection.variants()]
