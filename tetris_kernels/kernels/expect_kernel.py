"""The kernel of expected_accepts: a program for each budget, which selects as select does and adds up survivals."""

import triton
import triton.language as tl

from tetris_kernels.kernels.keys import MOST_TOKENS, order_keys
from tetris_kernels.kernels.loading import BUDGET, PACKED, load_batch, owns_rows, tile_width, words_of
from tetris_kernels.kernels.primitives import load_high, load_low, narrow
from tetris_kernels.kernels.select_kernel import keep

# Bits of `form` beside those of loading.py.
REQUESTS = tl.constexpr(12)  # a shift, as BUDGET
COUNTS = tl.constexpr(1 << 14)  # results stay integers
ACCEPTS = tl.constexpr(2.0**-16)  # one unit of survival


@triton.jit
def survival(cost):
    """exp(-cost) in units of 2^-16, int32, from an int32 cost in units of 2^-16 nats: integers alone, so that every
    device has the same bits. 65536 for 0, within 0.505 of the exact value, never more for a larger cost."""
    # Beyond 12 nats it is below half a unit. The cost in units of 2^-26 bits: times log2(e), of which there are 2^-31.
    bits = tl.umulhi((tl.minimum(cost, 12 << 16) << 11).to(tl.uint32), 3098164009)
    # 2^-fraction for 0 <= fraction < 1, in units of 2^-31: the polynomial of least error, each step of it positive.
    fraction = bits << 6
    power = 19783838 - tl.umulhi(fraction, 2036310)
    power = 118758180 - tl.umulhi(fraction, power)
    power = 515782661 - tl.umulhi(fraction, power)
    power = 1488513833 - tl.umulhi(fraction, power)
    power = 2147483533 - tl.umulhi(fraction, power)
    # Shifted by 15 and the whole bits, rounded.
    return (((power >> ((bits >> 26) + 14)) + 1) >> 1).to(tl.int32)


@triton.jit
def load_tokens(words_ptr, index, length, words, default):
    """[length] numbers of tokens, int32 or int64 by their words, as int32 within 0..MOST_TOKENS."""
    low = load_low(words_ptr, index, length, words, default)
    high = load_high(words_ptr, index, length, words)
    tokens = narrow(low, high, index < tl.where(words > 1, length, 0))
    return tl.minimum(tl.maximum(tokens, 0), MOST_TOKENS)


@triton.jit
def _sum_survivals(batch, lens, N_PAD: tl.constexpr, K_PAD: tl.constexpr):
    """Survivals of the first lens [N_PAD] drafts of each request, added up: at most 2^14 x 2^16, int32."""
    logprobs_ptr, stride_n, stride_k, budgets_ptr, _, num_requests, num_drafts, form = batch
    by_row: tl.constexpr = owns_rows(K_PAD // tile_width(K_PAD))
    # Loaded again, rather than held in registers during the search. What is added to the rows is 0, which the compiler
    # does not see, or it would hold the addresses instead.
    rows = tl.arange(0, N_PAD) + (lens >> 16)
    num_rows = tl.where(num_drafts > 0, num_requests, 0)
    form &= PACKED  # the layout alone: no budget
    chunks, _ = load_batch(
        logprobs_ptr, stride_n, stride_k, budgets_ptr, 0, rows, num_rows, num_drafts, form, K_PAD, by_row
    )
    # No floors and weights here: they are preferences, and no draft survives because of them.
    none = tl.zeros((N_PAD,), tl.int32)
    costs = order_keys(chunks, form, lens, none, none, 0)
    total = none
    for c in tl.static_range(len(costs)):
        # What is not kept costs NEVER, of which the survival is 0.
        total += tl.sum(survival(costs[c]), axis=1)
    return tl.sum(total, axis=0)


@triton.jit(
    do_not_specialize=["logprobs_ptr", "stride_n", "stride_k", "budgets_ptr", "requests_ptr", "host_requests"]
    + ["draft_lens_ptr", "min_lens_ptr", "max_lens_ptr", "log_weights_ptr", "sums_ptr"]
    + ["num_requests", "num_drafts", "num_budgets", "form"]
)
def expect_kernel(
    logprobs_ptr,  # [N, K] float32
    stride_n: tl.int64,  # in elements
    stride_k: tl.int64,  # in elements
    budgets_ptr,  # [num_budgets] int32 or int64, as 32-bit words
    requests_ptr,  # [1] int32 or int64, as 32-bit words: taken off each budget
    host_requests,  # the same where there is no such tensor
    draft_lens_ptr,  # [N] int32 or int64, as 32-bit words
    min_lens_ptr,  # as draft_lens_ptr
    max_lens_ptr,  # as draft_lens_ptr
    log_weights_ptr,  # [N] float32, as int32
    sums_ptr,  # [programs] float32, or int32 in units of 2^-16, as int32
    num_requests,
    num_drafts,
    num_budgets,  # programs from num_budgets on have the same budgets and one draft more
    form,  # bits that say what the arguments are: see above and loading.py
    N_PAD: tl.constexpr,
    K_PAD: tl.constexpr,
):
    program = tl.program_id(0)
    more = tl.where(program < num_budgets, 0, 1)
    budgets_ptr += (program - more * num_budgets) * words_of(form, BUDGET)
    less = load_tokens(requests_ptr, 0, 1, words_of(form, REQUESTS), host_requests) - more
    # Tuples only from here on: as arguments their elements would be specialised on their alignment.
    per_request = (draft_lens_ptr, min_lens_ptr, max_lens_ptr, log_weights_ptr)
    batch = (logprobs_ptr, stride_n, stride_k, budgets_ptr, 0, num_requests, num_drafts, form)
    lens, tied, rest = keep(batch, per_request, less, N_PAD, K_PAD)
    lens += tl.where(tl.cumsum(tied, axis=0) <= rest, tied, 0)
    total = _sum_survivals(batch, lens, N_PAD, K_PAD)
    accepts = (total.to(tl.float32) * ACCEPTS).to(tl.int32, bitcast=True)
    tl.store(sums_ptr + program, tl.where((form & COUNTS) != 0, total, accepts))
