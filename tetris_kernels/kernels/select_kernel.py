"""The one-program select kernel: a whole batch in the registers of one program, one launch.

A thread owns whole rows: K is held as tiles of four drafts, so that everything along a row stays in a
thread, and only counts cross the batch. The order keys are integers; they are searched in float32, where
they are exact up to LARGE, because a saturating float subtraction counts faster than an integer compare.
"""

import triton
import triton.language as tl

from tetris_kernels.kernels.loading import (
    BFLOAT16,
    BUDGET,
    DRAFT_LENS,
    LOG_WEIGHTS,
    MAX_LENS,
    MIN_LENS,
    WIDE,
    load_batch,
    load_per_request,
    owns_rows,
    tile_width,
    words_of,
)
from tetris_kernels.kernels.primitives import saturate, token_cost, weight_cost, widen

LARGE = tl.constexpr(1 << 24)  # keys in -LARGE..LARGE are exact in float32
INFINITE = tl.constexpr(1.5e9)  # above every usable key (below 2^30 + 2^26), below NEVER
NEVER = tl.constexpr(0x7FFFFFFF)
WEIGHT_ZERO = tl.constexpr(500 * 65536)  # keys are kept relative to a log-weight of 0


@triton.jit
def _row_limits(pointers, values, form, rows, num_requests, num_drafts):
    """Usable drafts, floor and base key of each request, each [N_PAD] int32; the key of floors; whether there are
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
def _order_keys(chunks, form, usable, floors, base, lowest):
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
def _load_keys(
    logprobs_ptr,
    stride_n,
    stride_k,
    budget_ptr,
    host_budget,
    per_request,
    num_requests,
    num_drafts,
    form,
    zero,
    N_PAD: tl.constexpr,
    K_PAD: tl.constexpr,
    BY_ROW: tl.constexpr,
):
    """The batch's keys, usable drafts [N_PAD], budget of 0 or more, and what `_row_limits` says of the keys."""
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
            usable, floors, base, lowest, weighted = _row_limits(
                per_request, values, form, rows, num_requests, num_drafts
            )
            tl.debug_barrier()
    chunks, budget = load_batch(
        logprobs_ptr, stride_n, stride_k, budget_ptr, host_budget, rows, num_rows, num_drafts, form, K_PAD, BY_ROW
    )
    if BY_ROW and per_request is not None:
        usable, floors, base, lowest, weighted = _row_limits(per_request, values, form, rows, num_requests, num_drafts)
    if words_of(form, BUDGET) == 2:
        budget = saturate(budget, budget_ptr, 0, 1, 2)
    # No row keeps more than the budget; said here, it keeps the budget's load from sinking behind the search.
    usable = tl.where(rows < num_requests, tl.maximum(tl.minimum(usable, budget), 0), 0)
    keys = _order_keys(chunks, form, usable, floors, base, lowest)
    return keys, usable, tl.maximum(budget, 0), lowest, weighted


@triton.jit
def _to_float(keys):
    """float32 keys: exact within -LARGE..LARGE, one class of -LARGE below, above LARGE somewhere above."""
    floats = ()
    for c in tl.static_range(len(keys)):
        floats = floats + (tl.maximum(keys[c].to(tl.float32), -LARGE * 1.0),)
    return floats


@triton.jit
def _below(keys, limit):
    """How many float32 keys are below a limit, both integers: [N_PAD] float32 a row where a thread owns its row,
    else [N_PAD, width] a column of the tiles, so that nothing crosses threads yet."""
    count = tl.minimum(tl.maximum(limit - keys[0], 0.0), 1.0)
    for c in tl.static_range(1, len(keys)):
        count += tl.minimum(tl.maximum(limit - keys[c], 0.0), 1.0)
    if owns_rows(len(keys)):
        count = tl.sum(count, axis=1)
    return count


@triton.jit
def _per_row(count):
    """[N_PAD] int32 from what `_below` returns."""
    if len(count.shape) == 2:
        count = tl.sum(count, axis=1)
    return count.to(tl.int32)


@triton.jit
def _totals(a, b, c, usable):
    """Sums of three counts of `_below` and of usable [N_PAD] int32, each sum below 2^15."""
    low = (a + b * 65536.0).to(tl.int32)
    high = c.to(tl.int32)
    if len(a.shape) == 1:
        # One joint reduction: one chain of barriers for both words.
        low, high = tl.split(tl.sum(tl.join(low, high + (usable << 16)), axis=0))
    else:
        first = tl.arange(0, a.shape[1])[None, :] == 0
        low = tl.sum(low)
        high = tl.sum(high + tl.where(first, usable[:, None] << 16, 0))
    return low & 0xFFFF, low >> 16, high & 0xFFFF, high >> 16


@triton.jit
def _upto(keys, limit):
    """[N_PAD] int32: int32 keys of each row up to a limit."""
    count = (keys[0] <= limit).to(tl.int32)
    for c in tl.static_range(1, len(keys)):
        count += (keys[c] <= limit).to(tl.int32)
    return tl.sum(count, axis=1)


@triton.jit
def _narrow(budget, lo, hi, upto, t0, t1, t2, n0, n1, n2):
    """The part of (lo, hi] that holds the budget's last key, and how many keys its end covers."""
    new_lo = tl.where(n2 < budget, t2, tl.where(n1 < budget, t1, tl.where(n0 < budget, t0, lo)))
    new_hi = tl.where(n0 >= budget, t0, tl.where(n1 >= budget, t1, tl.where(n2 >= budget, t2, hi)))
    new_upto = tl.where(n0 >= budget, n0, tl.where(n1 >= budget, n1, tl.where(n2 >= budget, n2, upto)))
    return new_lo, new_hi, new_upto


@triton.jit
def _search(keys, budget, usable, lowest, weighted):
    """Bracket the budget's last key: count(key <= lo) < budget <= count(key <= hi) = upto, until upto is the
    budget or hi = lo + 1. Returns lo, hi, upto and the budget cut down to the number of usable drafts."""
    lo = tl.maximum(lowest, -LARGE) - 1
    hi = tl.full((), LARGE, tl.int32)
    # Without weights most cuts lie at 0, within 0.25 or within 1.5 nats; with them, within 4 nats on both sides.
    t0 = tl.where(weighted, -4 * 65536, 0)
    t1 = tl.where(weighted, 0, 65536 // 4 - 1)
    t2 = 3 * 65536 // 2 - 1
    n0, n1, n2, total = _totals(
        _below(keys, (t0 + 1).to(tl.float32)),
        _below(keys, (t1 + 1).to(tl.float32)),
        _below(keys, t2 + 1.0),
        usable,
    )
    budget = tl.minimum(budget, total)
    lo, hi, upto = _narrow(budget, lo, hi, total, t0, t1, t2, n0, n1, n2)
    while (hi - lo > 1) & (upto != budget):
        # A quarter of the bracket, but no wider than its lower end: the far end is LARGE and rarely meant.
        step = tl.maximum(tl.minimum((hi - lo) >> 2, tl.maximum(lo, 0) + 65536 // 4), 1)
        t0 = lo + step
        t1 = t0 + step
        t2 = t1 + step
        n0, n1, n2, _ = _totals(
            _below(keys, (t0 + 1).to(tl.float32)),
            _below(keys, (t1 + 1).to(tl.float32)),
            _below(keys, (t2 + 1).to(tl.float32)),
            tl.zeros(usable.shape, tl.int32),
        )
        lo, hi, upto = _narrow(budget, lo, hi, upto, t0, t1, t2, n0, n1, n2)
    return lo, hi, upto, budget


@triton.jit
def _search_integers(keys, budget):
    """(count below, count up to) the budget's last key in each row, by bisection over all of int32."""
    lo = tl.full((), -NEVER - 1, tl.int32)
    hi = tl.full((), NEVER - 1, tl.int32)
    while lo + 1 < hi:
        middle = (lo >> 1) + (hi >> 1) + (lo & hi & 1)
        enough = tl.sum(_upto(keys, middle)) >= budget
        lo = tl.where(enough, lo, middle)
        hi = tl.where(enough, middle, hi)
    return _upto(keys, lo), _upto(keys, hi)


@triton.jit
def _share_ties(below, upto, budget, num_drafts, K_PAD: tl.constexpr):
    """Deal out the drafts that tie at the cut, position by position: row r has them at below[r]..upto[r]-1.

    Returns the lens when all tied drafts above some position are kept, which rows tie at that position,
    and how many of these rows, lowest first, get one more.
    """
    # covered[p]: drafts kept if the ties at positions below p are; it grows with p, and covered[0] <= budget.
    width: tl.constexpr = tile_width(K_PAD)
    depth = tl.full((), -1, tl.int32)
    reached = tl.full((), 0, tl.int32)
    for c in tl.static_range(K_PAD // width):
        position = tl.arange(0, width) + c * width
        kept = tl.minimum(tl.maximum(position[None, :], below[:, None]), upto[:, None])
        covered = tl.sum(kept, axis=0)
        fits = (covered <= budget) & (position < num_drafts)
        depth += tl.sum(fits.to(tl.int32))
        reached = tl.maximum(reached, tl.max(tl.where(fits, covered, 0)))
    lens = tl.minimum(tl.maximum(depth, below), upto)
    tied = (below <= depth) & (depth < upto)
    return lens, tied.to(tl.int32), budget - reached


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
    host_budget,  # counts where there is no device budget; num_requests * num_drafts keeps all
    draft_lens_ptr,  # [N] int32 or int64, as 32-bit words; None in the variants without optional tensors
    min_lens_ptr,  # as draft_lens_ptr
    max_lens_ptr,  # as draft_lens_ptr
    log_weights_ptr,  # [N] float32, as int32; None as the others
    lens_ptr,  # [N] int32
    cu_lens_ptr,  # [N + 1] int32
    num_requests,
    num_drafts,
    form,  # what the arguments are: see above
    N_PAD: tl.constexpr,
    K_PAD: tl.constexpr,
):
    # A tuple only from here on: as an argument its elements would be specialised on their alignment.
    per_request = None if draft_lens_ptr is None else (draft_lens_ptr, min_lens_ptr, max_lens_ptr, log_weights_ptr)
    keys, usable, budget, lowest, weighted = _load_keys(
        logprobs_ptr,
        stride_n,
        stride_k,
        budget_ptr,
        host_budget,
        per_request,
        num_requests,
        num_drafts,
        form,
        0,
        N_PAD,
        K_PAD,
        owns_rows(K_PAD // tile_width(K_PAD)),
    )
    floats = _to_float(keys)
    lo, hi, total, budget = _search(floats, budget, usable, lowest, weighted)

    lens = _per_row(_below(floats, tl.where(hi == LARGE, INFINITE, (hi + 1).to(tl.float32))))
    tied = tl.zeros((N_PAD,), tl.int32)
    rest = tl.full((), 0, tl.int32)
    if total != budget:
        below = _per_row(_below(floats, (lo + 1).to(tl.float32)))
        if (hi == LARGE) | (hi == -LARGE):
            # The cut is among keys that float32 does not tell apart. Rare: the integers are made again, rather than
            # held in registers all the time. hi is even: a zero that the compiler does not see, or it would hold
            # the addresses instead.
            keys, _, _, _, _ = _load_keys(
                logprobs_ptr,
                stride_n,
                stride_k,
                budget_ptr,
                host_budget,
                per_request,
                num_requests,
                num_drafts,
                form,
                hi & 1,
                N_PAD,
                K_PAD,
                False,
            )
            below, lens = _search_integers(keys, budget)
        lens, tied, rest = _share_ties(below, lens, budget, num_drafts, K_PAD)

    # One scan gives both the running total and each tied row's rank.
    scan = tl.cumsum(lens | (tied << 16), axis=0)
    rank = scan >> 16
    rows = tl.arange(0, N_PAD)
    live = rows < num_requests
    tl.store(lens_ptr + rows, lens + tl.where(rank <= rest, tied, 0), mask=live)
    tl.store(cu_lens_ptr, 0)
    tl.store(cu_lens_ptr + 1 + rows, (scan & 0xFFFF) + tl.minimum(rank, rest), mask=live)
