"""The one-program select kernel: a whole batch in the registers of one program, one launch.

A thread owns whole rows of up to 16 drafts, as tiles of four, so that everything along a row stays in a
thread, and only counts cross the batch. Longer rows are eight tiles spread over the lanes of a warp. The smallest
batches are ranked instead of searched (`ranking.py`).
"""

import triton
import triton.language as tl

from tetris_kernels.kernels.keys import load_keys
from tetris_kernels.kernels.loading import owns_rows, tile_width
from tetris_kernels.kernels.ranking import is_ranked, select_ranked
from tetris_kernels.kernels.search import (
    INFINITE,
    LARGE,
    count_below,
    per_row,
    search,
    search_integers,
    share_ties,
    to_float,
)


@triton.jit
def keep(batch, per_request, less, N_PAD: tl.constexpr, K_PAD: tl.constexpr):
    """What select keeps of each request: lens, tied, rest, as of `share_ties`.

    batch: a kernel's arguments; less: see `load_keys`.
    """
    num_drafts = batch[6]
    by_row: tl.constexpr = owns_rows(K_PAD // tile_width(K_PAD))
    keys, usable, budget, lowest, weighted = load_keys(batch, per_request, less, 0, N_PAD, K_PAD, by_row)
    floats = to_float(keys)
    lo, hi, upto, budget = search(floats, budget, usable, lowest, weighted)

    lens = per_row(count_below(floats, tl.where(hi == LARGE, INFINITE, (hi + 1).to(tl.float32))))
    tied = tl.zeros((N_PAD,), tl.int32)
    rest = tl.full((), 0, tl.int32)
    if upto != budget:
        below = per_row(count_below(floats, (lo + 1).to(tl.float32)))
        if (hi == LARGE) | (hi == -LARGE):
            # The cut is among keys that float32 does not tell apart. Rare: the integers are made again, rather than
            # held in registers all the time. hi is even: a zero that the compiler does not see, or it would hold
            # the addresses instead.
            keys, _, _, _, _ = load_keys(batch, per_request, less, hi & 1, N_PAD, K_PAD, False)
            below, lens = search_integers(keys, budget)
        lens, tied, rest = share_ties(below, lens, budget, num_drafts, K_PAD)

    return lens, tied, rest


@triton.jit
def select_batch(batch, per_request, lens_ptr, cu_lens_ptr, N_PAD: tl.constexpr, K_PAD: tl.constexpr):
    """The whole of select, from a kernel's arguments to its outputs."""
    num_requests = batch[5]
    lens, tied, rest = keep(batch, per_request, None, N_PAD, K_PAD)
    # One scan gives both the running total and each tied row's rank.
    scan = tl.cumsum(lens | (tied << 16), axis=0)
    rank = scan >> 16
    rows = tl.arange(0, N_PAD)
    live = rows < num_requests
    tl.store(lens_ptr + rows, lens + tl.where(rank <= rest, tied, 0), mask=live)
    tl.store(cu_lens_ptr, 0)
    tl.store(cu_lens_ptr + 1 + rows, (scan & 0xFFFF) + tl.minimum(rank, rest), mask=live)


@triton.jit(
    do_not_specialize=["logprobs_ptr", "stride_n", "stride_k", "budget_ptr", "host_budget"]
    + ["draft_lens_ptr", "min_lens_ptr", "max_lens_ptr", "log_weights_ptr"]
    + ["lens_ptr", "cu_lens_ptr", "num_requests", "num_drafts", "form"]
)
def select_kernel(
    logprobs_ptr,  # [N, K] float32, or the bits of bfloat16 or float16
    stride_n: tl.int64,  # in elements
    stride_k: tl.int64,  # in elements
    budget_ptr,  # [1] int32 or int64, as 32-bit words
    host_budget,  # num_requests * num_drafts keeps all and reads no log-probs; 0 beside a device budget
    draft_lens_ptr,  # [N] int32 or int64, as 32-bit words; None in the variants without optional tensors
    min_lens_ptr,  # as draft_lens_ptr
    max_lens_ptr,  # as draft_lens_ptr
    log_weights_ptr,  # [N] float32, as int32; None as the others
    lens_ptr,  # [N] int32
    cu_lens_ptr,  # [N + 1] int32
    num_requests,
    num_drafts,
    form,  # bits that say what the arguments are: see loading.py
    N_PAD: tl.constexpr,
    K_PAD: tl.constexpr,
):
    # A tuple only from here on: as an argument its elements would be specialised on their alignment.
    per_request = None if draft_lens_ptr is None else (draft_lens_ptr, min_lens_ptr, max_lens_ptr, log_weights_ptr)
    batch = (logprobs_ptr, stride_n, stride_k, budget_ptr, host_budget, num_requests, num_drafts, form)
    if is_ranked(N_PAD, K_PAD):
        select_ranked(batch, per_request, lens_ptr, cu_lens_ptr, N_PAD, K_PAD)
    else:
        select_batch(batch, per_request, lens_ptr, cu_lens_ptr, N_PAD, K_PAD)
