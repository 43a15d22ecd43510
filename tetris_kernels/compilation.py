"""warmup: compile ahead of serving, so that no request waits for a compiler."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from tetris_kernels import checks
from tetris_kernels.backend import check_backend, triton_kernels


def warmup(
    device: torch.device | str | int = "cuda",
    *,
    max_requests: int = 4096,
    max_drafts: int = checks.MAX_DRAFTS,
    dtypes: Sequence[torch.dtype] = checks.FLOATS,
) -> int:
    """Compile and load the Triton kernels that batches on `device` can ask for.

    Nothing else compiles later: not for another budget, batch size, length or stride. Call it in each
    serving process before the first CUDA graph is captured, since a capture cannot compile. Compiled
    kernels are kept in Triton's cache on disk, so that later processes only load them.

    Args:
        device: the device that the batches are on. An int is a CUDA index.
        max_requests: largest number of requests of a batch. Batches beyond one program use torch anyway.
        max_drafts: largest number of drafts of a request.
        dtypes: those of log-probs and logits, the drafter's and the target's, in any combination.

    Returns:
        The number of kernels compiled or loaded, at most about 85.

    Raises:
        TypeError, ValueError: an unknown dtype, a negative or non-integer size, a device without Triton.
    """
    device = torch.device(device)
    check_backend("triton", device)
    max_requests = checks.as_size("max_requests", max_requests)
    max_drafts = checks.as_size("max_drafts", max_drafts)
    for dtype in dtypes:
        if dtype not in checks.FLOATS:
            raise TypeError(f"dtypes: expected some of {', '.join(map(str, checks.FLOATS))}, got {dtype}")
    return int(triton_kernels("catalogue").warmup(device, dtypes, max_requests, max_drafts))
