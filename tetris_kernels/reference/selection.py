"""select without Triton: in plain torch, and in numpy where the tensors are on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

from tetris_kernels.reference import selection_numpy

NEVER = torch.iinfo(torch.int32).max


def select(
    draft_logprobs: Tensor,
    budget: Tensor | None,
    host_budget: int,
    draft_lens: Tensor | None,
    min_lens: Tensor | None,
    max_lens: Tensor | None,
    log_weights: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`tetris_kernels.select` on checked arguments, returning (lens, cu_lens).

    The budget is the one element of `budget` where that is given, else `host_budget`.
    """
    run = selection_numpy.select if draft_logprobs.is_cpu else select_on_device
    return run(draft_logprobs, budget, host_budget, draft_lens, min_lens, max_lens, log_weights)


def select_on_device(
    draft_logprobs: Tensor,
    budget: Tensor | None,
    host_budget: int,
    draft_lens: Tensor | None,
    min_lens: Tensor | None,
    max_lens: Tensor | None,
    log_weights: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`select` by torch operations that never wait for the device."""
    usable = usable_lens(draft_logprobs, draft_lens, max_lens)
    if draft_logprobs.numel() == 0 or (budget is None and host_budget >= draft_logprobs.numel()):
        lens = usable
    else:
        keys = order_keys(running_costs(draft_logprobs), usable, min_lens, log_weights)
        limit = host_budget if budget is None else budget.reshape(()).clamp(0, keys.numel())
        total = usable.sum(dtype=torch.int32).clamp(max=limit)
        lens = _take_first(keys, total)
    cu_lens = torch.zeros(lens.shape[0] + 1, dtype=torch.int32, device=lens.device)
    torch.cumsum(lens, 0, dtype=torch.int32, out=cu_lens[1:])
    return lens, cu_lens


def usable_lens(draft_logprobs: Tensor, draft_lens: Tensor | None, max_lens: Tensor | None) -> Tensor:
    """[N] int32: drafts of each request that may be taken at all."""
    num_requests, num_drafts = draft_logprobs.shape
    usable = torch.full((num_requests,), num_drafts, dtype=torch.int32, device=draft_logprobs.device)
    for lens in (draft_lens, max_lens):
        if lens is not None:
            usable = torch.minimum(usable, lens.clamp(0, num_drafts).to(torch.int32))
    return usable


def running_costs(draft_logprobs: Tensor) -> Tensor:
    """[N, K] int32 in units of 2^-16 nats: what each draft and those before it cost."""
    cost = draft_logprobs.detach().float().neg().nan_to_num_(nan=64.0).clamp_(0.0, 64.0)
    return cost.mul_(65536.0).to(torch.int32).cumsum(1, dtype=torch.int32)


def order_keys(keys: Tensor, usable: Tensor, min_lens: Tensor | None, log_weights: Tensor | None) -> Tensor:
    """`running_costs` [N, K] made the order keys, in place: smaller is better; NEVER beyond the usable drafts."""
    if log_weights is not None:
        weights = log_weights.detach().nan_to_num(nan=-500.0).clamp_(-500.0, 500.0)
        keys += ((500.0 - weights) * 65536.0).to(torch.int32)[:, None]
    position = torch.arange(keys.shape[1], dtype=torch.int32, device=keys.device)
    if min_lens is not None:
        keys.masked_fill_(position < min_lens[:, None], -1)
    return keys.masked_fill_(position >= usable[:, None], NEVER)


def _take_first(keys: Tensor, total: Tensor) -> Tensor:
    """[N] int32: how many of each row are among the first `total` in (key, position, request) order.

    `total` is at most the number of usable keys, so NEVER is not reached.
    """
    cut = _kth_smallest(keys, total)
    below = (keys < cut).sum(1, dtype=torch.int32)
    tied = keys == cut
    rest = total - below.sum(dtype=torch.int32)
    # Ties go position by position, and within a position request by request: the transpose's order.
    rank = tied.T.flatten().cumsum(0, dtype=torch.int32).view(keys.shape[1], keys.shape[0])
    return below + (tied.T & (rank <= rest)).sum(0, dtype=torch.int32)


def _kth_smallest(keys: Tensor, k: Tensor) -> Tensor:
    """The k-th smallest key, counted from 1; the smallest for k = 0. 0-d."""
    return keys.flatten().sort().values.gather(0, (k - 1).clamp(min=0).long().reshape(1)).reshape(())
