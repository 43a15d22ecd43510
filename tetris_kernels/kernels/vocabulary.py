"""Device functions over rows of logits: a row is read in chunks of a fixed size, one program each.

A chunk's state is its largest logit and the sum of exp((x - that) / temperature). Chunks are fixed by the
vocabulary alone, and everything is added up in one order, so a row's result is the same in every batch.
"""

import triton
import triton.language as tl

from tetris_kernels.kernels.primitives import widen

CHUNK = tl.constexpr(8192)  # tokens
MAX_VOCABULARY = 262144  # 32 chunks

LOG2_E = tl.constexpr(1.4426950408889634)
LN_2 = tl.constexpr(0.6931471805599453)
# Keeps masked logits of -inf as they are when a temperature is infinite, and differences of 0 when it is tiny.
MIN_SCALE = tl.constexpr(2.0**-64)
MAX_SCALE = tl.constexpr(2.0**64)


@triton.jit
def base2_scale(temperature):
    """What turns differences of logits into base-2 exponents; a temperature that is not above 0 counts as 1."""
    scale = tl.minimum(tl.maximum(1.0 / temperature, MIN_SCALE), MAX_SCALE)
    return tl.where(temperature > 0, scale, 1.0) * LOG2_E


@triton.jit
def load_chunk(row_ptr, stride_v, chunk, vocabulary, is_bf16, WIDE: tl.constexpr, CHUNK: tl.constexpr):
    """Tokens [CHUNK] of a chunk and their logits in float32, -inf beyond the vocabulary.

    row_ptr: float32, bfloat16, float16, or the bits of a 16-bit type, of which is_bf16 says which.
    WIDE: the row and the vocabulary are whole pieces of 16 bytes, side by side.
    """
    token = chunk * CHUNK + tl.arange(0, CHUNK)
    inside = token < vocabulary
    from_bits: tl.constexpr = row_ptr.dtype.element_ty == tl.int16
    # Bits have no -inf before it is known whose they are.
    other: tl.constexpr = 0 if from_bits else float("-inf")
    if WIDE:
        piece: tl.constexpr = 128 // row_ptr.dtype.element_ty.primitive_bitwidth
        pointers = tl.multiple_of(row_ptr + token, 16)
        logits = tl.load(pointers, mask=tl.max_constancy(inside, piece), other=other, eviction_policy="evict_first")
    else:
        logits = tl.load(row_ptr + token * stride_v, mask=inside, other=other, eviction_policy="evict_first")
    if from_bits:
        logits = tl.where(inside, widen(logits, is_bf16), float("-inf"))
    return token, logits.to(tl.float32)


@triton.jit
def anchor_of(largest):
    """What to subtract from logits before exponentiating: the largest, or 0 if there are none but -inf."""
    return tl.where(largest == float("-inf"), 0.0, largest)
