"""Which draft tokens of a batch to verify: exact, on the device, without a host sync."""

from tetris_kernels.compilation import warmup
from tetris_kernels.selection import select
from tetris_kernels.types import Selection

__all__ = ["Selection", "__version__", "select", "warmup"]
__version__ = "0.1.0"
