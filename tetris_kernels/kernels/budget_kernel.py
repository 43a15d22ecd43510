"""The kernel of choose_budget's decision: one warp, which has all ends of verification sizes side by side."""

import triton
import triton.language as tl

from tetris_kernels.kernels.expect_kernel import ACCEPTS, REQUESTS, load_tokens
from tetris_kernels.kernels.loading import BUDGET, words_of

ENDS = tl.constexpr(64)  # at most
ARGMAX = tl.constexpr(1 << 15)  # a bit of `form`: the rule; beside those of expect_kernel.py


@triton.jit
def _first_drop(ends, first, last, following, tokens, next_tokens, seconds, next_seconds, reward, factor):
    """The first end from `first` on behind which the next draft does not pay, or the last one."""
    # Products alone, in this order, of which nothing can be fused. A NaN is not greater, and stops.
    gain = following * (next_tokens - tokens).to(tl.float32) * seconds
    price = (next_seconds - seconds) * factor * reward
    goes_on = (ends < last) & (gain > price)
    return tl.min(tl.where(goes_on | (ends < first), ENDS, ends), axis=0)


@triton.jit
def _argmax(ends, holds, first, seconds, reward, factor):
    """The end of the largest reward a second, the first of equal ones; `first` unless it beats that by the factor."""
    rate = tl.div_rn(reward, seconds)
    known = tl.where(holds & (rate == rate), rate, float("-inf"))
    best = tl.max(known, axis=0)
    where = tl.min(tl.where(holds & (known == best), ends, ENDS), axis=0)
    beaten = tl.max(tl.where((ends == first) & (best > rate * factor), 1, 0), axis=0)
    return tl.where(beaten != 0, where, first)


@triton.jit(
    do_not_specialize=["sums_ptr", "tokens_ptr", "seconds_ptr", "requests_ptr", "host_requests", "factor"]
    + ["budget_ptr", "num_ends", "form"]
)
def budget_kernel(
    sums_ptr,  # [2 num_ends] int32 in units of 2^-16 accepts: of expect_kernel
    tokens_ptr,  # [num_ends] int32 or int64, as 32-bit words
    seconds_ptr,  # [num_ends] float32
    requests_ptr,  # [1] int32 or int64, as 32-bit words
    host_requests,  # the same where there is no such tensor
    factor,  # 1 + min_gain, float32
    budget_ptr,  # [1] int32
    num_ends,
    form,  # bits that say what the arguments are: see expect_kernel.py
):
    ends = tl.arange(0, ENDS)
    words = words_of(form, BUDGET)
    requests = load_tokens(requests_ptr, 0, 1, words_of(form, REQUESTS), host_requests)
    tokens = load_tokens(tokens_ptr, ends, num_ends, words, 0)
    next_tokens = load_tokens(tokens_ptr, ends + 1, num_ends, words, 0)
    seconds = tl.load(seconds_ptr + ends, mask=ends < num_ends, other=0.0)
    next_seconds = tl.load(seconds_ptr + ends + 1, mask=ends + 1 < num_ends, other=0.0)
    sums = tl.load(sums_ptr + ends, mask=ends < num_ends, other=0)
    more = tl.load(sums_ptr + num_ends + ends, mask=ends < num_ends, other=0)

    room = tokens - requests
    holds = (room >= 0) & (ends < num_ends)
    first = tl.min(tl.where(holds, ends, ENDS), axis=0)
    # Fused or not: the product is exact.
    reward = requests.to(tl.float32) + sums.to(tl.float32) * ACCEPTS
    if (form & ARGMAX) != 0:
        chosen = _argmax(ends, holds, first, seconds, reward, factor)
    else:
        following = (more - sums).to(tl.float32) * ACCEPTS
        chosen = _first_drop(
            ends, first, num_ends - 1, following, tokens, next_tokens, seconds, next_seconds, reward, factor
        )
    # Nothing is chosen where no end holds the requests.
    tl.store(budget_ptr, tl.sum(tl.where((ends == chosen) & holds, room, 0), axis=0))
