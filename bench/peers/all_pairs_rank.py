"""SGLang's form in Triton: the rank of a draft is the number of drafts before it, by comparing all pairs.

The idea is that of SGLang's scheduler for DSpark: keys, ranks and counts in three launches, the sums of integer
atomics, then a cumulative sum. Work grows with the square of the batch. The budget is a host integer there.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from bench.peers.keys_triton import NEVER, load_keys

ROWS = 32
TILE_I = 64
TILE_J = 128


@triton.jit(do_not_specialize=["num_requests"])
def key_kernel(logprobs_ptr, draft_lens_ptr, keys_ptr, ranks_ptr, cu_lens_ptr, num_requests, num_drafts: tl.constexpr,
               K_PAD: tl.constexpr, ROWS: tl.constexpr):  # fmt: skip
    """Keys [K, N], position by position; ranks [K, N] and cu_lens[0] become 0."""
    request = (tl.program_id(0) * ROWS + tl.arange(0, ROWS))[None, :]
    position = tl.arange(0, K_PAD)[:, None]
    keys = load_keys(logprobs_ptr, draft_lens_ptr, position, request, num_requests, num_drafts)
    entry = position * num_requests + request
    real = (position < num_drafts) & (request < num_requests)
    tl.store(keys_ptr + entry, keys, mask=real)
    tl.store(ranks_ptr + entry, 0, mask=real)
    tl.store(cu_lens_ptr, 0, mask=tl.program_id(0) == 0)


@triton.jit(do_not_specialize=["num_entries"])
def rank_kernel(keys_ptr, ranks_ptr, num_entries, TILE_I: tl.constexpr, TILE_J: tl.constexpr):
    """Adds to each rank of tile i how many of tile j come before. Integers: the order of additions does not show."""
    i = tl.program_id(0) * TILE_I + tl.arange(0, TILE_I)
    j = tl.program_id(1) * TILE_J + tl.arange(0, TILE_J)
    key_i = tl.load(keys_ptr + i, mask=i < num_entries, other=NEVER)[:, None]
    key_j = tl.load(keys_ptr + j, mask=j < num_entries, other=NEVER)[None, :]
    before = (key_j < key_i) | ((key_j == key_i) & (j[None, :] < i[:, None]))
    tl.atomic_add(ranks_ptr + i, tl.sum(before.to(tl.int32), 1), mask=i < num_entries, sem="relaxed")


@triton.jit(do_not_specialize=["num_requests", "budget"])
def count_kernel(keys_ptr, ranks_ptr, lens_ptr, num_requests, budget, num_drafts: tl.constexpr, K_PAD: tl.constexpr,
                 ROWS: tl.constexpr):  # fmt: skip
    """lens [N]: the drafts of each request whose rank is below the budget."""
    request = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    position = tl.arange(0, K_PAD)[:, None]
    entry = position * num_requests + request[None, :]
    real = (position < num_drafts) & (request < num_requests)[None, :]
    key = tl.load(keys_ptr + entry, mask=real, other=NEVER)
    rank = tl.load(ranks_ptr + entry, mask=real, other=0)
    kept = (key != NEVER) & (rank < budget)
    tl.store(lens_ptr + request, tl.sum(kept.to(tl.int32), 0), mask=request < num_requests)


def select(draft_logprobs: Tensor, budget: int | Tensor, draft_lens: Tensor | None) -> tuple[Tensor, Tensor]:
    """The budget is an int."""
    num_requests, num_drafts = draft_logprobs.shape
    num_entries = num_requests * num_drafts
    keys, ranks = draft_logprobs.new_empty((2, num_entries), dtype=torch.int32)
    lens = draft_logprobs.new_empty(num_requests, dtype=torch.int32)
    cu_lens = draft_logprobs.new_empty(num_requests + 1, dtype=torch.int32)
    shape = {"num_drafts": num_drafts, "K_PAD": triton.next_power_of_2(num_drafts), "ROWS": ROWS}
    by_rows = (triton.cdiv(num_requests, ROWS),)
    by_pairs = (triton.cdiv(num_entries, TILE_I), triton.cdiv(num_entries, TILE_J))
    key_kernel[by_rows](draft_logprobs, draft_lens, keys, ranks, cu_lens, num_requests, **shape)
    rank_kernel[by_pairs](keys, ranks, num_entries, TILE_I=TILE_I, TILE_J=TILE_J)
    count_kernel[by_rows](keys, ranks, lens, num_requests, int(budget), **shape)
    torch.cumsum(lens, 0, dtype=torch.int32, out=cu_lens[1:])
    return lens, cu_lens
