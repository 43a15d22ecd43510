"""The order keys of a batch: integers, smaller is better, as contract and oracle have them.

With weights a key is relative to that of a request with log-weight 0, which keeps ordinary keys small.
"""

import triton
import triton.language as tl

from tetris_kernels.kernels.loading import (
    BFLOAT16,
    DRAFT_LENS,
    LOG_WEIGHTS,
    MAX_LENS,
    MIN_LENS,
    WIDE,
    load_batch,
    load_per_request,
    words_of,
)
from tetris_kernels.kernels.primitives import saturate, token_cost, weight_cost, widen

NEVER = tl.constexpr(0x7FFFFFFF)  # the key of what is never taken
WEIGHT_ZERO = tl.constexpr(500 * 65536)
MOST_TOKENS = tl.constexpr(1 << 30)  # numbers of tokens count as 0..MOST_TOKENS: their differences are int32


@triton.jit
def row_limits(pointers, values, form, rows, num_requests, num_drafts):
    """Usable drafts, floor and base key of each request, as `rows`, int32; the key of floors; whether there are
    weights, and with them negative keys."""
    draft_lens_ptr, min_lens_ptr, max_lens_ptr, _ = pointers
    draft_lens, min_lens, max_lens, log_weights = values
    if (form & WIDE) != 0:
        draft_lens = saturate(draft_lens, draft_lens_ptr, rows, num_requests, words_of(form, DRAFT_LENS))
        min_lens = saturate(min_lens, min_lens_ptr, rows, num_requests, words_of(form, MIN_LENS))
        max_lens = saturate(max_lens, max_lens_ptr, rows, num_requests, words_of(form, MAX_LENS))
    usable = tl.minimum(tl.minimum(draft_lens, max_lens), num_drafts)
    weighted = words_of(form, LOG_WEIGHTS) != 0
    base = tl.where(weighted, weight_cost(log_weights.to(tl.float32, bitcast=True)) - WEIGHT_ZERO, 0)
    lowest = tl.where(weighted, -NEVER, tl.where(words_of(form, MIN_LENS) != 0, -1, 0))
    return usable, min_lens, base, lowest, weighted


@triton.jit
def order_keys(chunks, form, usable, floors, base, lowest):
    """The tiles' int32 keys: the running cost of the row on top of its base, floors first, NEVER beyond usable."""
    width: tl.constexpr = chunks[0].shape[1]
    keys = ()
    for c in tl.static_range(len(chunks)):
        logprob = chunks[c]
        if logprob.dtype == tl.int16:
            logprob = widen(logprob, (form & BFLOAT16) != 0)
        cols = (tl.arange(0, width) + c * width)[None, :]
        cost = token_cost(logprob)
        key = tl.cumsum(cost, axis=1) + base[:, None]
        base += tl.sum(cost, axis=1)
        key = tl.where(cols < floors[:, None], lowest, key)
        keys = keys + (tl.where(cols < usable[:, None], key, NEVER),)
    return keys


@triton.jit
def load_keys(batch, per_request, less, zero, N_PAD: tl.constexpr, K_PAD: tl.constexpr, BY_ROW: tl.constexpr):
    """The batch's keys, usable drafts [N_PAD], budget of 0 or more, and what `row_limits` says of the keys.

    batch: the kernel's arguments; less: None, or at most MOST_TOKENS, taken off the budget; BY_ROW: whole rows in a
    thread; zero: see the call that does not pass 0.
    """
    logprobs_ptr, stride_n, stride_k, budget_ptr, host_budget, num_requests, num_drafts, form = batch
    rows = tl.arange(0, N_PAD) + zero
    # A host budget that covers everything needs no log-probs.
    num_rows = tl.where(host_budget < num_requests * num_drafts, num_requests, 0)
    usable = tl.zeros((N_PAD,), tl.int32) + num_drafts
    floors = tl.zeros((N_PAD,), tl.int32)
    base = tl.zeros((N_PAD,), tl.int32)
    lowest = 0
    weighted = False
    if per_request is not None:
        values = load_per_request(per_request, form, rows, num_requests)
        if not BY_ROW:
            # One round trip more, but what it frees keeps the many loads of a tile from spilling.
            usable, floors, base, lowest, weighted = row_limits(
                per_request, values, form, rows, num_requests, num_drafts
            )
            tl.debug_barrier()
    chunks, budget = load_batch(
        logprobs_ptr, stride_n, stride_k, budget_ptr, host_budget, rows, num_rows, num_drafts, form, K_PAD, BY_ROW
    )
    if less is not None:
        budget = tl.minimum(tl.maximum(budget, 0), MOST_TOKENS) - less
    if BY_ROW and per_request is not None:
        usable, floors, base, lowest, weighted = row_limits(per_request, values, form, rows, num_requests, num_drafts)
    # No row keeps more than the budget; said here, it keeps the budget's load from sinking behind the search.
    usable = tl.where(rows < num_requests, tl.maximum(tl.minimum(usable, budget), 0), 0)
    keys = order_keys(chunks, form, usable, floors, base, lowest)
    return keys, usable, tl.maximum(budget, 0), lowest, weighted
