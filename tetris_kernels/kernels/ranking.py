"""What select keeps of a batch so small that every draft is compared with every other.

No search, no loop, no barrier, and the same time on any input. A tile has a request along each axis: those of axis 0
are read from memory, those of axis 1 are the same ones, taken from the diagonal by shuffles.
"""

import triton
import triton.language as tl

from tetris_kernels.kernels.keys import row_limits
from tetris_kernels.kernels.loading import BFLOAT16, BUDGET, load_per_request, words_of
from tetris_kernels.kernels.primitives import load_high, load_low, narrow, token_cost, widen

MOST = tl.constexpr(32)  # drafts of a batch
NEVER = tl.constexpr(0x7FFFFFFE)  # the key of what is never taken: above all others, and one more is an int32 too
MASK = tl.constexpr(127)  # of a rank: those of four positions are in a word, of seven bits each
NO_RANK = tl.constexpr(64)  # more than MOST, so that no budget reaches it; with a rank on top still within MASK


@triton.constexpr_function
def is_ranked(n_pad, k_pad):
    return n_pad * k_pad <= MOST and k_pad <= 4


@triton.constexpr_function
def unit(position):
    """A rank of 1 at this position."""
    return 1 << (7 * position)


@triton.jit
def _load_keys(batch, per_request, rows, K_PAD: tl.constexpr):
    """The int32 keys of requests `rows`, a tile for each position, as those of `keys.load_keys`; the budget, which may
    be negative."""
    logprobs_ptr, stride_n, stride_k, budget_ptr, host_budget, num_requests, num_drafts, form = batch
    # A host budget that covers everything needs no log-probs.
    num_rows = tl.where(host_budget < num_requests * num_drafts, num_requests, 0)
    # All loads come before what waits for one of them (but the high words of lens, which are rarely there).
    words = words_of(form, BUDGET)
    low = load_low(budget_ptr, 0, 1, words, host_budget)
    high = load_high(budget_ptr, 0, 1, words)
    usable = tl.zeros(rows.shape, tl.int32) + num_drafts
    floors = tl.zeros(rows.shape, tl.int32)
    key = tl.zeros(rows.shape, tl.int32)
    lowest = 0
    if per_request is not None:
        values = load_per_request(per_request, form, rows, num_requests)
    columns = ()
    for c in tl.static_range(K_PAD):
        mask = rows < tl.where(c < num_drafts, num_rows, 0)
        columns = columns + (tl.load(logprobs_ptr + rows * stride_n + c * stride_k, mask=mask, other=0),)

    if per_request is not None:
        usable, floors, key, lowest, _ = row_limits(per_request, values, form, rows, num_requests, num_drafts)
    budget = narrow(low, high, words > 1)
    # No row keeps more than the budget; said here, it keeps the budget's load from sinking behind all that follows.
    usable = tl.where(rows < num_requests, tl.minimum(usable, budget), 0)
    keys = ()
    for c in tl.static_range(K_PAD):
        logprob = columns[c]
        if logprob.dtype == tl.int16:
            logprob = widen(logprob, (form & BFLOAT16) != 0)
        key += token_cost(logprob)
        keys = keys + (tl.where(c < usable, tl.where(c < floors, lowest, key), NEVER),)
    return keys, budget


@triton.jit
def select_ranked(batch, per_request, lens_ptr, cu_lens_ptr, N_PAD: tl.constexpr, K_PAD: tl.constexpr):
    """The whole of select, from a kernel's arguments to its outputs."""
    num_requests = batch[5]
    rows = tl.arange(0, N_PAD)[:, None] + tl.zeros((1, N_PAD), tl.int32)
    others = tl.arange(0, N_PAD)[None, :]
    keys, budget = _load_keys(batch, per_request, rows, K_PAD)

    # [i, j]: how many drafts of request i come before each draft of request j, whose positions share a word. The sums
    # over i are ranks.
    ranks = tl.zeros((N_PAD, N_PAD), tl.int32)
    for c in tl.static_range(K_PAD):
        key = tl.sum(tl.where(rows == others, keys[c], 0), axis=0)[None, :]
        for d in tl.static_range(K_PAD):
            # Equal keys are in the order of position, then of requests.
            if d < c:
                before = keys[d] <= key
            elif d == c:
                before = keys[d] < key + (rows < others).to(tl.int32)
            else:
                before = keys[d] < key
            ranks += tl.where(before, unit(c), 0)
        # Once for each request, so in one row: drafts that cannot be kept.
        ranks += tl.where((rows == 0) & (key == NEVER), NO_RANK * unit(c), 0)
    ranks = tl.sum(ranks, axis=0)
    budget = tl.minimum(budget, MOST)
    lens = tl.zeros((N_PAD,), tl.int32)
    for c in tl.static_range(K_PAD):
        lens += ((ranks // unit(c) & MASK) < budget).to(tl.int32)

    lens = lens[None, :]
    tl.store(lens_ptr + others, lens, mask=others < num_requests)
    cu_lens = tl.sum(tl.where(others <= rows, lens, 0), axis=1)[:, None] + tl.zeros((1, N_PAD), tl.int32)
    tl.store(cu_lens_ptr, 0)
    tl.store(cu_lens_ptr + 1 + rows, cu_lens, mask=(rows < num_requests) & (others == 0))
