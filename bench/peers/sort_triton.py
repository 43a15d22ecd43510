"""One Triton program sorts all keys with `tl.sort`, and what the key at the cut leaves open is handed out.

The idea is that of sfllm's single-program selection, where batch and budget are compile-time constants; here only the
padded shape is. It grows steeply with the batch: 16,384 entries are allowed, but take half a minute to compile and
spill registers.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench.peers.keys_triton import NEVER, load_keys


@triton.jit(do_not_specialize=["num_requests", "num_drafts", "budget"])
def sort_kernel(logprobs_ptr, draft_lens_ptr, lens_ptr, cu_lens_ptr, num_requests, num_drafts, budget,
                N_PAD: tl.constexpr, K_PAD: tl.constexpr):  # fmt: skip
    """Entries go position by position, so that their index is the order of ties."""
    request = tl.arange(0, N_PAD)
    position = tl.arange(0, K_PAD)[:, None]
    keys = load_keys(logprobs_ptr, draft_lens_ptr, position, request[None, :], num_requests, num_drafts)

    flat = tl.reshape(keys, (K_PAD * N_PAD,))
    size = tl.minimum(budget, tl.sum((flat != NEVER).to(tl.int32)))
    in_order = tl.sort(flat)
    # 0 keeps nothing, but has a first key all the same.
    is_cut = tl.arange(0, K_PAD * N_PAD) == tl.maximum(size - 1, 0)
    cut = tl.sum(tl.where(is_cut, in_order, 0))

    below = (flat < cut).to(tl.int32)
    tied = (flat == cut).to(tl.int32)
    rest = size - tl.sum(below)
    kept = below | (tied & (tl.cumsum(tied, 0) <= rest).to(tl.int32))
    lens = tl.sum(tl.reshape(kept, (K_PAD, N_PAD)), 0)

    tl.store(lens_ptr + request, lens, mask=request < num_requests)
    tl.store(cu_lens_ptr, 0)
    tl.store(cu_lens_ptr + 1 + request, tl.cumsum(lens, 0), mask=request < num_requests)


def select(draft_logprobs: Tensor, budget: int | Tensor, draft_lens: Tensor | None) -> tuple[Tensor, Tensor]:
    """The budget is an int."""
    num_requests, num_drafts = draft_logprobs.shape
    lens = draft_logprobs.new_empty(num_requests, dtype=torch.int32)
    cu_lens = draft_logprobs.new_empty(num_requests + 1, dtype=torch.int32)
    n_pad, k_pad = triton.next_power_of_2(num_requests), triton.next_power_of_2(num_drafts)
    num_warps = min(max(n_pad * k_pad // 256, 1), 16)
    sort_kernel[(1,)](
        draft_logprobs,
        draft_lens,
        lens,
        cu_lens,
        num_requests,
        num_drafts,
        int(budget),
        N_PAD=n_pad,
        K_PAD=k_pad,
        num_warps=num_warps,
    )
    return lens, cu_lens
