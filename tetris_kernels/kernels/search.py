"""Finding the budget's last key and what it leaves to each request.

Keys are integers, searched in float32 where they are exact, because a saturating float subtraction counts
faster than an integer compare.
"""

import triton
import triton.language as tl

from tetris_kernels.kernels.keys import NEVER
from tetris_kernels.kernels.loading import owns_rows, tile_width

LARGE = tl.constexpr(1 << 24)  # keys in -LARGE..LARGE are exact in float32
USUAL_ROUNDS = tl.constexpr(5)
INFINITE = tl.constexpr(1.5e9)  # above every usable key (below 2^30 + 2^26), below NEVER


@triton.jit
def to_float(keys):
    """float32 keys: exact within -LARGE..LARGE, one class of -LARGE below, above LARGE somewhere above."""
    floats = ()
    for c in tl.static_range(len(keys)):
        floats = floats + (tl.maximum(keys[c].to(tl.float32), -LARGE * 1.0),)
    return floats


@triton.jit
def count_below(keys, limit):
    """How many float32 keys are below a limit, both integers: [N_PAD] float32 a row where a thread owns its row,
    else [N_PAD, width] a column of the tiles, so that nothing crosses threads yet."""
    count = tl.minimum(tl.maximum(limit - keys[0], 0.0), 1.0)
    for c in tl.static_range(1, len(keys)):
        count += tl.minimum(tl.maximum(limit - keys[c], 0.0), 1.0)
    if owns_rows(len(keys)):
        count = tl.sum(count, axis=1)
    return count


@triton.jit
def per_row(count):
    """[N_PAD] int32 from what `count_below` returns."""
    if len(count.shape) == 2:
        count = tl.sum(count, axis=1)
    return count.to(tl.int32)


@triton.jit
def _totals(a, b, c, usable):
    """Sums of three counts of `count_below` and of usable [N_PAD] int32, each sum below 2^15."""
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
def _count_upto(keys, limit):
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


@triton.constexpr_function
def is_small(num_tiles, tile_size):
    """Whether a thread owns its rows and most searches are over after the first round and USUAL_ROUNDS more."""
    return owns_rows(num_tiles) and num_tiles * tile_size <= 1024


@triton.jit
def _round(keys, budget, usable, lo, hi, upto):
    """One round of a search: the bracket's part that holds the budget's last key, about a quarter."""
    # A quarter of the bracket at most, and no more than its lower end is from 0: the far end is LARGE and rarely meant.
    step = tl.maximum(tl.minimum((hi - lo) >> 2, tl.abs(lo) + 65536 // 4), 1)
    t0 = lo + step
    t1 = tl.minimum(t0 + step, hi - 1)
    t2 = tl.minimum(t1 + step, hi - 1)
    n0, n1, n2, _ = _totals(
        count_below(keys, (t0 + 1).to(tl.float32)),
        count_below(keys, (t1 + 1).to(tl.float32)),
        count_below(keys, (t2 + 1).to(tl.float32)),
        tl.zeros(usable.shape, tl.int32),
    )
    return _narrow(budget, lo, hi, upto, t0, t1, t2, n0, n1, n2)


@triton.jit
def _tighten(keys, lo, hi):
    """lo and hi < LARGE moved to the keys between them: one below the least in (lo, hi], and the greatest.

    For tiles whose rows a thread owns.
    """
    # Not key > lo: the lowest lo has no float32.
    from_key = (lo + 1).to(tl.float32)
    upto_key = hi.to(tl.float32)
    least = tl.full(keys[0].shape, upto_key, tl.float32)
    greatest = tl.full(keys[0].shape, from_key, tl.float32)
    for c in tl.static_range(len(keys)):
        least = tl.minimum(least, tl.where(keys[c] >= from_key, keys[c], upto_key))
        greatest = tl.maximum(greatest, tl.where(keys[c] <= upto_key, keys[c], from_key))
    ends = tl.join(tl.min(least, axis=1), -tl.max(greatest, axis=1))
    # Integers have a reduction instruction; one chain of barriers for both ends.
    least, greatest = tl.split(tl.min(ends.to(tl.int32), axis=0))
    return least - 1, -greatest


@triton.jit
def search(keys, budget, usable, lowest, weighted):
    """Bracket the budget's last key: count(key <= lo) < budget <= count(key <= hi) = upto, until upto is the
    budget or hi = lo + 1. Returns lo, hi, upto and the budget cut down to the number of usable drafts."""
    lo = tl.maximum(lowest, -LARGE) - 1
    hi = tl.full((), LARGE, tl.int32)
    # Without weights most cuts lie at 0, within 0.25 or within 1.5 nats; with them, within 4 nats on both sides.
    t0 = tl.where(weighted, -4 * 65536, 0)
    t1 = tl.where(weighted, 0, 65536 // 4 - 1)
    t2 = 3 * 65536 // 2 - 1
    n0, n1, n2, total = _totals(
        count_below(keys, (t0 + 1).to(tl.float32)),
        count_below(keys, (t1 + 1).to(tl.float32)),
        count_below(keys, t2 + 1.0),
        usable,
    )
    budget = tl.minimum(budget, total)
    lo, hi, upto = _narrow(budget, lo, hi, total, t0, t1, t2, n0, n1, n2)
    if is_small(len(keys), keys[0].shape[0] * keys[0].shape[1]):
        left = USUAL_ROUNDS
        while (hi - lo > 1) & (upto != budget) & (left > 0):
            left -= 1
            lo, hi, upto = _round(keys, budget, usable, lo, hi, upto)
        if (hi - lo > 1) & (upto != budget) & (hi < LARGE):
            # Most searches are over. Where keys tie or lie on a coarse grid, few of them are left, perhaps one.
            lo, hi = _tighten(keys, lo, hi)
    while (hi - lo > 1) & (upto != budget):
        lo, hi, upto = _round(keys, budget, usable, lo, hi, upto)
    return lo, hi, upto, budget


@triton.jit
def search_integers(keys, budget):
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
def share_ties(below, upto, budget, num_drafts, K_PAD: tl.constexpr):
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
