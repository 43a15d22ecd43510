"""Small device functions shared by the kernels: arithmetic with a name."""

import triton
import triton.language as tl

MAX_COST = tl.constexpr(64.0)  # nats a token
SCALE = tl.constexpr(65536.0)  # units of 2^-16 nats
MAX_WEIGHT = tl.constexpr(500.0)  # nats


@triton.jit
def widen(bits, is_bf16):
    """float32 from a 16-bit pattern: bfloat16 or float16, told at run time."""
    from_bf16 = (bits.to(tl.int32) << 16).to(tl.float32, bitcast=True)
    from_fp16 = bits.to(tl.float16, bitcast=True).to(tl.float32)
    return tl.where(is_bf16, from_bf16, from_fp16)


@triton.jit
def token_cost(logprob):
    """int32 cost of a token in units of 2^-16 nats: -logprob in 0..64 nats, truncated. NaN: 64 nats."""
    nats = tl.where(logprob == logprob, -logprob, MAX_COST)
    return (tl.minimum(tl.maximum(nats, 0.0), MAX_COST) * SCALE).to(tl.int32)


@triton.jit
def weight_cost(log_weight):
    """int32 cost that a request's priority adds to its keys: 0..1000 nats. NaN: 1000 nats."""
    weight = tl.where(log_weight == log_weight, log_weight, -MAX_WEIGHT)
    weight = tl.minimum(tl.maximum(weight, -MAX_WEIGHT), MAX_WEIGHT)
    return ((-weight + MAX_WEIGHT) * SCALE).to(tl.int32)


@triton.jit
def load_low(words_ptr, index, length, words, default):
    """The low 32 bits of [length] elements of `words` = 1 (int32) or 2 (int64) words; the default beyond.

    words = 0 stands for an absent array: nothing is read, and all are the default.
    """
    # The mask is a bound, not a flag: the interpreter turns a scalar bool that is broadcast into an integer.
    return tl.load(words_ptr + index * words, mask=index < tl.where(words > 0, length, 0), other=default)


@triton.jit
def load_high(words_ptr, index, length, words):
    """The high 32 bits of [length] int64 (words = 2); 0 for others, of which nothing is read."""
    return tl.load(words_ptr + index * words + 1, mask=index < tl.where(words > 1, length, 0), other=0)


@triton.jit
def saturate(low, words_ptr, index, length, words):
    """int32 nearest to an int64, of which `low` are the low 32 bits; `low` itself for other arrays."""
    high = load_high(words_ptr, index, length, words)
    return narrow(low, high, index < tl.where(words > 1, length, 0))


@triton.jit
def narrow(low, high, wide):
    """int32 nearest to an int64 of these words; `low` itself where it is not `wide`."""
    beyond = tl.where(high < 0, -0x80000000, 0x7FFFFFFF)
    return tl.where(wide & (high != low >> 31), beyond, low)
