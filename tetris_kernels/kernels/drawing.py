"""Drawing one token by inverse CDF: find the chunk in which the running mass passes the point, then the token.

What is drawn, and from what, stands in a request's plan, which the decide kernel writes.
"""

import triton
import triton.language as tl

from tetris_kernels.kernels.primitives import widen
from tetris_kernels.kernels.vocabulary import CHUNK, LOG2_E, load_chunk

# Bits of `form`: what the arguments are, told at run time so that it does not multiply the variants.
TARGET_WIDE = tl.constexpr(1)  # rows of target logits are whole aligned pieces of 16 bytes
TARGET_BF16 = tl.constexpr(2)  # 16-bit target logits are bfloat16, else float16
DRAFT_WIDE = tl.constexpr(4)
DRAFT_BF16 = tl.constexpr(8)
WIDE_IDS = tl.constexpr(16)  # draft ids are int64, else int32
TEMPERATURES = tl.constexpr(32)  # there is one temperature per request, else one for all
COUPLED = tl.constexpr(64)  # the first draft that is not selected is tested too

# A plan: PLAN 32-bit words per request.
PLAN = tl.constexpr(10)
SLOT = tl.constexpr(0)  # row of target logits to draw from; -1: there is nothing to draw
COLUMN = tl.constexpr(1)  # where in the request's tokens the drawn one belongs
DRAFT_ROW = tl.constexpr(2)  # the draft whose distribution is subtracted; -1: none
EXCLUDED = tl.constexpr(3)  # with one-hot drafts, the token that is left out; -1: none
UNIFORM = tl.constexpr(4)  # from here on float32
SCALE = tl.constexpr(5)  # p(token) = exp2((logit - ANCHOR) * SCALE) * INVERSE
ANCHOR = tl.constexpr(6)
INVERSE = tl.constexpr(7)
DRAFT_ANCHOR = tl.constexpr(8)
DRAFT_INVERSE = tl.constexpr(9)

NONE = tl.constexpr(0x7FFFFFFF)  # beyond every token
MAX_CHUNKS = tl.constexpr(32)


@triton.jit
def planned(plan_ptr, request, field: tl.constexpr):
    """A float32 of a request's plan."""
    return tl.load(plan_ptr + request * PLAN + field).to(tl.float32, bitcast=True)


@triton.jit
def _powers(row_ptr, stride_v, chunk, vocabulary, is_bf16, anchor, scale, WIDE: tl.constexpr):
    """Tokens [CHUNK] of a chunk and exp2((logit - anchor) * scale) of each."""
    if WIDE:
        token, logits = load_chunk(row_ptr, stride_v, chunk, vocabulary, is_bf16, True, CHUNK)
    else:
        # Tokens beyond the last read it again: they are masked out later, and a predicate each costs registers.
        token = chunk * CHUNK + tl.arange(0, CHUNK)
        logits = tl.load(row_ptr + tl.minimum(token, vocabulary - 1) * stride_v)
        if logits.dtype == tl.int16:
            logits = widen(logits, is_bf16)
        logits = tl.where(token < vocabulary, logits, float("-inf"))
    return token, tl.exp2((logits - anchor) * scale)


@triton.jit
def _excess(p, q):
    # The comparison is of rounded values; p - q alone may be fused with a product, and not be 0 where they are equal.
    return tl.where(p > q, p - q, 0.0)


@triton.jit
def _residual_mass(target, draft, chunk, vocabulary, has_draft, WIDE: tl.constexpr):
    """Mass of a chunk under max(p - q, 0), 0 if there is no draft, and under p."""
    target_row, stride_v, is_bf16, anchor, scale, inverse = target
    _, p = _powers(target_row, stride_v, chunk, vocabulary, is_bf16, anchor, scale, WIDE)
    p = p * inverse
    residual = tl.full((), 0.0, tl.float32)
    if has_draft:
        draft_row, stride_qv, draft_is_bf16, draft_anchor, draft_inverse = draft
        _, q = _powers(draft_row, stride_qv, chunk, vocabulary, draft_is_bf16, draft_anchor, LOG2_E, WIDE)
        residual = tl.sum(_excess(p, q * draft_inverse))
    return residual, tl.sum(p)


@triton.jit(
    do_not_specialize=["target_ptr", "stride_row", "stride_v", "draft_ptr", "stride_n", "stride_k", "stride_qv"]
    + ["plan_ptr", "masses_ptr", "num_requests", "vocabulary", "form"]
)
def residual_kernel(
    target_ptr,  # [capacity, V] float32, or the bits of bfloat16 or float16
    stride_row: tl.int64,  # strides in elements
    stride_v: tl.int64,
    draft_ptr,  # [N, K, V] float32, or the bits of bfloat16 or float16
    stride_n: tl.int64,
    stride_k: tl.int64,
    stride_qv: tl.int64,
    plan_ptr,  # [N, PLAN] int32
    masses_ptr,  # [2, chunks, N] float32: of the residual, of p
    num_requests,
    vocabulary,
    form,
):
    num_chunks = tl.cdiv(vocabulary, CHUNK)
    request = tl.program_id(0) // num_chunks
    chunk = tl.program_id(0) % num_chunks
    slot = tl.load(plan_ptr + request * PLAN + SLOT)
    if slot < 0:
        return
    row = tl.load(plan_ptr + request * PLAN + DRAFT_ROW)

    anchor = planned(plan_ptr, request, ANCHOR)
    scale = planned(plan_ptr, request, SCALE)
    inverse = planned(plan_ptr, request, INVERSE)
    draft_anchor = planned(plan_ptr, request, DRAFT_ANCHOR)
    draft_inverse = planned(plan_ptr, request, DRAFT_INVERSE)
    target_row = target_ptr + slot * stride_row
    draft_row = draft_ptr + request * stride_n + row * stride_k
    target = (target_row, stride_v, (form & TARGET_BF16) != 0, anchor, scale, inverse)
    draft = (draft_row, stride_qv, (form & DRAFT_BF16) != 0, draft_anchor, draft_inverse)

    both: tl.constexpr = TARGET_WIDE | DRAFT_WIDE
    if (form & both) == both:
        residual, mass = _residual_mass(target, draft, chunk, vocabulary, row >= 0, True)
    else:
        residual, mass = _residual_mass(target, draft, chunk, vocabulary, row >= 0, False)
    tl.store(masses_ptr + chunk * num_requests + request, residual)
    tl.store(masses_ptr + (num_chunks + chunk) * num_requests + request, mass)


@triton.jit
def _first_beyond(weights, index, running, point):
    """The first index of some weight at which the running sum exceeds the point, else the last of some weight.

    -1 if there is no weight. The running sum may lack or exceed the exact one by a rounding, also of the point.
    """
    first = tl.min(tl.where((weights > 0) & (running > point), index, NONE))
    last = tl.max(tl.where(weights > 0, index, -1))
    return tl.where(first == NONE, last, first)


@triton.jit(
    do_not_specialize=["target_ptr", "stride_row", "stride_v", "draft_ptr", "stride_n", "stride_k", "stride_qv"]
    + ["plan_ptr", "masses_ptr", "num_columns", "tokens_ptr", "num_tokens", "vocabulary", "form"]
)
def draw_kernel(
    target_ptr,  # [capacity, V] float32, or the bits of bfloat16 or float16
    stride_row: tl.int64,  # strides in elements
    stride_v: tl.int64,
    draft_ptr,  # [N, K, V] float32, or the bits of bfloat16 or float16; None: drafts are one-hot
    stride_n: tl.int64,
    stride_k: tl.int64,
    stride_qv: tl.int64,
    plan_ptr,  # [N, PLAN] int32
    masses_ptr,  # [2, chunks, num_columns] float32: the residual kernel's of each request, or the states of each slot
    num_columns,  # of masses: requests, or the capacity
    tokens_ptr,  # [N, num_tokens] int64
    num_tokens,  # K + 1
    vocabulary,
    form,
):
    request = tl.program_id(0)
    slot = tl.load(plan_ptr + request * PLAN + SLOT)
    if slot < 0:
        return
    column = tl.load(plan_ptr + request * PLAN + COLUMN)
    row = tl.load(plan_ptr + request * PLAN + DRAFT_ROW)
    excluded = tl.load(plan_ptr + request * PLAN + EXCLUDED)
    uniform = planned(plan_ptr, request, UNIFORM)
    anchor = planned(plan_ptr, request, ANCHOR)
    scale = planned(plan_ptr, request, SCALE)
    inverse = planned(plan_ptr, request, INVERSE)

    # The masses of the chunks.
    num_chunks = tl.cdiv(vocabulary, CHUNK)
    chunks = tl.arange(0, MAX_CHUNKS)
    if draft_ptr is None:
        pointers = masses_ptr + chunks * num_columns + slot
        largest = tl.load(pointers, mask=chunks < num_chunks, other=float("-inf"))
        sums = tl.load(pointers + num_chunks * num_columns, mask=chunks < num_chunks, other=0.0)
        masses = sums * tl.exp2((largest - anchor) * scale)
    else:
        pointers = masses_ptr + chunks * num_columns + request
        residual = tl.load(pointers, mask=chunks < num_chunks, other=0.0)
        direct = tl.load(pointers + num_chunks * num_columns, mask=chunks < num_chunks, other=0.0)
        # Nothing is left where p and q are equal: then p itself.
        has_residual = tl.sum(residual) > 0
        masses = tl.where(has_residual, residual, direct)

    # The chunk, and how far into it.
    running = tl.cumsum(masses, 0)
    point = tl.where(uniform > 0, tl.minimum(uniform, 1.0), 0.0) * tl.sum(masses)
    chunk = tl.maximum(_first_beyond(masses, chunks, running, point), 0)
    left = tl.maximum(point - tl.sum(tl.where(chunks < chunk, masses, 0.0)), 0.0)

    # The token.
    target_row = target_ptr + slot * stride_row
    token, weights = _powers(
        target_row, stride_v, chunk, vocabulary, (form & TARGET_BF16) != 0, anchor, scale, WIDE=False
    )
    if draft_ptr is None:
        weights = tl.where(token == excluded, 0.0, weights)
    else:
        weights = weights * inverse
        if has_residual:
            draft_row = draft_ptr + request * stride_n + row * stride_k
            draft_anchor = planned(plan_ptr, request, DRAFT_ANCHOR)
            draft_inverse = planned(plan_ptr, request, DRAFT_INVERSE)
            is_bf16 = (form & DRAFT_BF16) != 0
            _, q = _powers(draft_row, stride_qv, chunk, vocabulary, is_bf16, draft_anchor, LOG2_E, WIDE=False)
            weights = _excess(weights, q * draft_inverse)
    drawn = _first_beyond(weights, token, tl.cumsum(weights, 0), left)
    # A row without any weight, as one of NaN or one that is masked but for a token that is left out: that token.
    drawn = tl.where(drawn < 0, tl.maximum(excluded, 0), drawn)
    tl.store(tokens_ptr + request * num_tokens + column, drawn.to(tl.int64))
