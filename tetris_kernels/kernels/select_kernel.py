"""The one-program select kernel: a whole batch in the registers of one program, one launch.

A thread owns whole rows: K is held as tiles of four drafts, so that everything along a row stays in a
thread, and only counts cross the batch. The order keys are integers; they are searched in float32, where
they are exact up to LARGE, because a saturating float subtraction counts faster than an integer compare.
"""

import triton
import triton.language as tl

from tetris_kernels.kernels.primitives import load_low, saturate, token_cost, weight_cost, widen

# Bits of `form`: what the arguments are, told at run time so that it does not multiply the variants.
PACKED = tl.constexpr(1)  # every four drafts of a row are one aligned piece of memory
BFLOAT16 = tl.constexpr(2)  # 16-bit log-probs are bfloat16, else float16
BUDGET = tl.constexpr(2)  # from here on shifts of two-bit fields: 32-bit words an element, 0 if absent
DRAFT_LENS = tl.constexpr(4)
MIN_LENS = tl.constexpr(6)
MAX_LENS = tl.constexpr(8)
LOG_WEIGHTS = tl.constexpr(10)

WIDE = tl.constexpr(sum(2 << field for field in (4, 6, 8)))  # any int64 per request

LARGE = tl.constexpr(1 << 24)  # keys in -LARGE..LARGE are exact in float32
INFINITE = tl.constexpr(1.5e9)  # above every usable key (below 2^30 + 2^26), below NEVER
NEVER = tl.constexpr(0x7FFFFFFF)
WEIGHT_ZERO = tl.constexpr(500 * 65536)  # keys are kept relative to a log-weight of 0


@triton.constexpr_function
def _tile_width(k_pad):
    """Drafts of a row in one tile: four where a thread can hold the row, else all."""
    return 4 if k_pad <= 32 else k_pad


@triton.jit
def _words(form, field: tl.constexpr):
    return (form >> field) & 3


@triton.jit
def _live(rows, num_rows, column, num_drafts):
    """[N_PAD] mask of a column of [N, K]."""
    return rows < tl.where(column < num_drafts, num_rows, 0)


@triton.jit
def _load_packed(logprobs_ptr, stride_n, rows, num_rows, num_drafts, CHUNKS: tl.constexpr):
    """[N, K] as tiles [N_PAD, 4], each row of a tile one vector load."""
    alignment: tl.constexpr = logprobs_ptr.dtype.element_ty.primitive_bitwidth // 2
    chunks = ()
    for c in tl.static_range(CHUNKS):
        ptrs = logprobs_ptr + rows[:, None] * stride_n + (tl.arange(0, 4) + c * 4)[None, :]
        ptrs = tl.multiple_of(ptrs, [alignment, alignment])
        mask = _live(rows, num_rows, c * 4, num_drafts)[:, None]
        chunks = chunks + (tl.load(ptrs, mask=mask, other=0),)
    return chunks


@triton.jit
def _load_columns(logprobs_ptr, stride_n, stride_k, rows, num_rows, num_drafts, CHUNKS: tl.constexpr):
    """[N, K] of any strides as tiles [N_PAD, 4], one load a column: coalesced for a transposed input."""
    chunks = ()
    for c in tl.static_range(CHUNKS):
        ptrs = logprobs_ptr + rows * stride_n + c * 4 * stride_k
        x0 = tl.load(ptrs, mask=_live(rows, num_rows, c * 4, num_drafts), other=0)
        x1 = tl.load(ptrs + stride_k, mask=_live(rows, num_rows, c * 4 + 1, num_drafts), other=0)
        x2 = tl.load(ptrs + 2 * stride_k, mask=_live(rows, num_rows, c * 4 + 2, num_drafts), other=0)
        x3 = tl.load(ptrs + 3 * stride_k, mask=_live(rows, num_rows, c * 4 + 3, num_drafts), other=0)
        tile = tl.join(tl.join(x0, x2), tl.join(x1, x3))
        chunks = chunks + (tl.reshape(tile, (rows.shape[0], 4)),)
    return chunks


@triton.jit
def _load_tile(logprobs_ptr, stride_n, stride_k, rows, num_rows, num_drafts, K_PAD: tl.constexpr):
    """[N, K] of any strides as one tile [N_PAD, K_PAD], for rows too long for one thread."""
    cols = tl.arange(0, K_PAD)[None, :]
    ptrs = logprobs_ptr + rows[:, None] * stride_n + cols * stride_k
    return (tl.load(ptrs, mask=(rows < num_rows)[:, None] & (cols < num_drafts), other=0),)


@triton.jit
def _load_batch(
    logprobs_ptr, stride_n, stride_k, budget_ptr, host_budget, rows, num_rows, num_drafts, form, K_PAD: tl.constexpr
):
    """[N, K] as a tuple of tiles [N_PAD, 4], or of one tile [N_PAD, K_PAD] where K_PAD > 32; and the budget.

    The budget is loaded in the branches of the log-probs: left outside, ptxas puts it before or behind them with
    a wait in between, a second round trip to memory.
    """
    words = _words(form, BUDGET)
    if K_PAD > 32:
        chunks = _load_tile(logprobs_ptr, stride_n, stride_k, rows, num_rows, num_drafts, K_PAD)
        budget = load_low(budget_ptr, 0, 1, words, host_budget)
    elif (form & PACKED) != 0:
        chunks = _load_packed(logprobs_ptr, stride_n, rows, num_rows, num_drafts, K_PAD // 4)
        budget = load_low(budget_ptr, 0, 1, words, host_budget)
    else:
        chunks = _load_columns(logprobs_ptr, stride_n, stride_k, rows, num_rows, num_drafts, K_PAD // 4)
        budget = load_low(budget_ptr, 0, 1, words, host_budget)
    return chunks, budget


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
def _to_float(keys):
    """float32 keys: exact within -LARGE..LARGE, one class of -LARGE below, above LARGE somewhere above."""
    floats = ()
    for c in tl.static_range(len(keys)):
        floats = floats + (tl.maximum(keys[c].to(tl.float32), -LARGE * 1.0),)
    return floats


@triton.jit
def _count_below(keys, limit):
    """[N_PAD] int32: float32 keys of each row that are below a limit, both integers."""
    count = tl.sum(tl.minimum(tl.maximum(limit - keys[0], 0.0), 1.0), axis=1)
    for c in tl.static_range(1, len(keys)):
        count += tl.sum(tl.minimum(tl.maximum(limit - keys[c], 0.0), 1.0), axis=1)
    return count.to(tl.int32)


@triton.jit
def _count_upto(keys, limit):
    """[N_PAD] int32: int32 keys of each row up to a limit."""
    count = tl.sum((keys[0] <= limit).to(tl.int32), axis=1)
    for c in tl.static_range(1, len(keys)):
        count += tl.sum((keys[c] <= limit).to(tl.int32), axis=1)
    return count


@triton.jit
def _totals(a, b, c, d):
    """Sums of four [N_PAD] int32 vectors, each sum below 2^15, in one reduction."""
    low, high = tl.split(tl.sum(tl.join(a | (b << 16), c | (d << 16)), axis=0))
    return low & 0xFFFF, low >> 16, high & 0xFFFF, high >> 16


@triton.jit
def _narrow(budget, lo, hi, upto, t0, t1, t2, n0, n1, n2):
    """The part of (lo, hi] that holds the budget's last key, and how many keys its end covers."""
    new_lo = tl.where(n2 < budget, t2, tl.where(n1 < budget, t1, tl.where(n0 < budget, t0, lo)))
    new_hi = tl.where(n0 >= budget, t0, tl.where(n1 >= budget, t1, tl.where(n2 >= budget, t2, hi)))
    new_upto = tl.where(n0 >= budget, n0, tl.where(n1 >= budget, n1, tl.where(n2 >= budget, n2, upto)))
    return new_lo, new_hi, new_upto


@triton.jit
def _load_per_request(per_request, form, rows, num_requests):
    """draft_lens, min_lens and max_lens [N_PAD] int32, low words, and the bits of log_weights."""
    draft_lens_ptr, min_lens_ptr, max_lens_ptr, log_weights_ptr = per_request
    # The branch is always taken; it holds the loads together ahead of all that waits for one of them.
    if form >= 0:
        draft_lens = load_low(draft_lens_ptr, rows, num_requests, _words(form, DRAFT_LENS), NEVER)
        min_lens = load_low(min_lens_ptr, rows, num_requests, _words(form, MIN_LENS), 0)
        max_lens = load_low(max_lens_ptr, rows, num_requests, _words(form, MAX_LENS), NEVER)
        log_weights = load_low(log_weights_ptr, rows, num_requests, _words(form, LOG_WEIGHTS), 0)
    else:
        draft_lens = tl.zeros(rows.shape, tl.int32)
        min_lens = draft_lens
        max_lens = draft_lens
        log_weights = draft_lens
    return draft_lens, min_lens, max_lens, log_weights


@triton.jit
def _row_limits(pointers, values, form, rows, num_requests, num_drafts):
    """Usable drafts, floor and base key of each request, each [N_PAD] int32; the key of floors; whether there are
    weights, and with them negative keys."""
    draft_lens_ptr, min_lens_ptr, max_lens_ptr, _ = pointers
    draft_lens, min_lens, max_lens, log_weights = values
    if (form & WIDE) != 0:
        draft_lens = saturate(draft_lens, draft_lens_ptr, rows, num_requests, _words(form, DRAFT_LENS))
        min_lens = saturate(min_lens, min_lens_ptr, rows, num_requests, _words(form, MIN_LENS))
        max_lens = saturate(max_lens, max_lens_ptr, rows, num_requests, _words(form, MAX_LENS))
    usable = tl.minimum(tl.minimum(draft_lens, max_lens), num_drafts)
    weighted = _words(form, LOG_WEIGHTS) != 0
    base = tl.where(weighted, weight_cost(log_weights.to(tl.float32, bitcast=True)) - WEIGHT_ZERO, 0)
    lowest = tl.where(weighted, -NEVER, tl.where(_words(form, MIN_LENS) != 0, -1, 0))
    return usable, min_lens, base, lowest, weighted


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
        _count_below(keys, (t0 + 1).to(tl.float32)),
        _count_below(keys, (t1 + 1).to(tl.float32)),
        _count_below(keys, t2 + 1.0),
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
            _count_below(keys, (t0 + 1).to(tl.float32)),
            _count_below(keys, (t1 + 1).to(tl.float32)),
            _count_below(keys, (t2 + 1).to(tl.float32)),
            usable,
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
        enough = tl.sum(_count_upto(keys, middle)) >= budget
        lo = tl.where(enough, lo, middle)
        hi = tl.where(enough, middle, hi)
    return _count_upto(keys, lo), _count_upto(keys, hi)


@triton.jit
def _share_ties(below, upto, budget, num_drafts, K_PAD: tl.constexpr):
    """Deal out the drafts that tie at the cut, position by position: row r has them at below[r]..upto[r]-1.

    Returns the lens when all tied drafts above some position are kept, which rows tie at that position,
    and how many of these rows, lowest first, get one more.
    """
    # covered[p]: drafts kept if the ties at positions below p are; it grows with p, and covered[0] <= budget.
    width: tl.constexpr = _tile_width(K_PAD)
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
    do_not_specialize=["logprobs_ptr", "stride_n", "stride_k", "budget_ptr", "host_budget", "per_request"]
    + ["lens_ptr", "cu_lens_ptr", "num_requests", "num_drafts", "form"]
)
def select_kernel(
    logprobs_ptr,  # [N, K] float32, or the bits of bfloat16 or float16
    stride_n: tl.int64,  # in elements
    stride_k: tl.int64,  # in elements
    budget_ptr,  # [1] int32 or int64, as 32-bit words
    host_budget,  # counts where there is no device budget; num_requests * num_drafts keeps all
    per_request,  # None, or draft_lens, min_lens, max_lens [N] as 32-bit words, log_weights [N] as int32 bits
    lens_ptr,  # [N] int32
    cu_lens_ptr,  # [N + 1] int32
    num_requests,
    num_drafts,
    form,  # what the arguments are: see above
    N_PAD: tl.constexpr,
    K_PAD: tl.constexpr,
):
    rows = tl.arange(0, N_PAD)
    # All loads are issued before the first use. A host budget that covers everything needs no log-probs.
    num_rows = tl.where(host_budget < num_requests * num_drafts, num_requests, 0)
    if per_request is not None:
        values = _load_per_request(per_request, form, rows, num_requests)
    chunks, budget = _load_batch(
        logprobs_ptr, stride_n, stride_k, budget_ptr, host_budget, rows, num_rows, num_drafts, form, K_PAD
    )
    usable = tl.zeros((N_PAD,), tl.int32) + num_drafts
    floors = tl.zeros((N_PAD,), tl.int32)
    base = tl.zeros((N_PAD,), tl.int32)
    lowest = 0
    weighted = False
    if per_request is not None:
        usable, floors, base, lowest, weighted = _row_limits(
            per_request, values, form, rows, num_requests, num_drafts
        )
    if _words(form, BUDGET) == 2:
        budget = saturate(budget, budget_ptr, 0, 1, 2)

    # No row keeps more than the budget; said here, it keeps the budget's load from sinking behind the search.
    usable = tl.where(rows < num_requests, tl.maximum(tl.minimum(usable, budget), 0), 0)
    budget = tl.maximum(budget, 0)
    keys = _to_float(_order_keys(chunks, form, usable, floors, base, lowest))
    lo, hi, total, budget = _search(keys, budget, usable, lowest, weighted)

    upto = _count_below(keys, tl.where(hi == LARGE, INFINITE, (hi + 1).to(tl.float32)))
    lens = upto
    tied = tl.zeros(rows.shape, tl.int32)
    rest = tl.full((), 0, tl.int32)
    if total != budget:
        below = _count_below(keys, (lo + 1).to(tl.float32))
        if (hi == LARGE) | (hi == -LARGE):
            # The cut is among keys that float32 does not tell apart: rare, so they are made again.
            chunks, _ = _load_batch(
                logprobs_ptr, stride_n, stride_k, budget_ptr, host_budget, rows, num_rows, num_drafts, form, K_PAD
            )
            below, upto = _search_integers(_order_keys(chunks, form, usable, floors, base, lowest), budget)
        lens, tied, rest = _share_ties(below, upto, budget, num_drafts, K_PAD)

    # One scan gives both the running total and each tied row's rank.
    scan = tl.cumsum(lens | (tied << 16), axis=0)
    rank = scan >> 16
    live = rows < num_requests
    tl.store(lens_ptr + rows, lens + tl.where(rank <= rest, tied, 0), mask=live)
    tl.store(cu_lens_ptr, 0)
    tl.store(cu_lens_ptr + 1 + rows, (scan & 0xFFFF) + tl.minimum(rank, rest), mask=live)
