"""select: which drafts of a batch are worth verifying."""

from __future__ import annotations

from typing import SupportsIndex

import torch
from torch import Tensor

from tetris_kernels import checks, ops
from tetris_kernels.backend import check_backend
from tetris_kernels.types import Selection


def select(
    draft_logprobs: Tensor,
    budget: SupportsIndex | Tensor,
    *,
    draft_lens: Tensor | None = None,
    min_lens: Tensor | None = None,
    max_lens: Tensor | None = None,
    log_weights: Tensor | None = None,
    backend: str = "auto",
) -> Selection:
    """Keep the `budget` drafts of the batch that are most likely to be accepted.

    A draft counts only if all before it are accepted, so its value is its survival, the product of the
    acceptance estimates up to it, and what is kept of each request is a prefix. In words of a heap
    (TETRIS, arXiv 2502.15197, Algorithm 1)::

        lens = [0] * N
        while sum(lens) < budget and some request r has lens[r] < usable[r]:
            r = the request whose next draft has the largest exp(log_weights[r]) * survival
            lens[r] += 1

    Args:
        draft_logprobs: [N, K], K <= 256; float32, bfloat16 or float16; any strides. Natural log of the
            acceptance estimate of each draft given the drafts before it, per token and not cumulative.
            -inf and NaN mean never, values above 0 count as 0.
        budget: how many drafts may be kept in all. An integer, or an int32 or int64 tensor of one element
            on the same device, which is not read by the host. More than there are keeps all of them; a
            negative tensor value counts as 0.
        draft_lens: [N] int32 or int64, how many drafts of each row are real. Default: K. Clamped to 0..K.
        min_lens: [N] int32 or int64, drafts of each request to keep before all others, shallow ones first.
            They count towards the budget, which is never exceeded.
        max_lens: [N] int32 or int64, the most drafts to keep of each request.
        log_weights: [N] float32, priority of each request in nats: log(2) doubles the value of its drafts.
            Clamped to -500..500; NaN counts as -500.
        backend: "torch", "triton", or "auto": Triton on a GPU for batches of up to one program (see
            README, Limits), else torch.

    Returns:
        Selection of `lens` [N] int32 and `cu_lens` [N + 1] int32 in fresh tensors, nothing mutated.
        `sum(lens)` is exactly min(budget, usable drafts). Survival is compared in units of 2^-16 nats,
        each token's cost truncated and capped at 64 nats; equal ones go to the shallower draft, then to
        the lower request. So the result is the same on every device and backend, bit for bit.

    Raises:
        TypeError: an argument of the wrong type or dtype; a bool or float budget.
        ValueError: a wrong shape or device, a negative host budget, an unknown backend or one that cannot
            run here, and for "triton" a batch beyond one program.
    """
    like = checks.check_logprobs(draft_logprobs)
    preferences = checks.check_preferences(draft_lens, min_lens, max_lens, log_weights, like)
    device_budget, host_budget = checks.split_size("budget", budget, like)
    check_backend(backend, draft_logprobs.device)

    traced = ops.is_traced(draft_logprobs, device_budget, *preferences)
    run = torch.ops.tetris_kernels.select if traced else ops.select
    return Selection(*run(draft_logprobs, device_budget, host_budget, *preferences, backend))
