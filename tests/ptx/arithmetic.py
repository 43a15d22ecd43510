"""What instructions compute from numbers: functions of numpy arrays, a lane each, by PTX's definitions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ptx.types import UNSIGNED, Array, Mask, bits_of


def minimum(a: Array, b: Array) -> Array:
    """min.f32: of a NaN and a number the number; -0 is below +0."""
    return np.where(a == b, (bits_of(a) | bits_of(b)).view(np.float32), np.fmin(a, b))


def maximum(a: Array, b: Array) -> Array:
    """max.f32: of a NaN and a number the number; -0 is below +0."""
    return np.where(a == b, (bits_of(a) & bits_of(b)).view(np.float32), np.fmax(a, b))


def relu(choose: Callable[[Array, Array], Array]) -> Callable[[Array, Array], Array]:
    """The .relu form of an integer min or max: 0 instead of what is negative."""
    return lambda a, b: np.maximum(choose(a, b), 0)


def fused(a: Array, b: Array, c: Array) -> Array:
    """a * b + c in float32, rounded once."""
    product = a.astype(np.float64) * b.astype(np.float64)  # exact: 48 bits
    addend = c.astype(np.float64)
    total = product + addend
    # What was rounded away (Knuth's two-sum) makes the last bit odd, so that rounding again cannot go wrong.
    back = total - product
    lost = (product - (total - back)) + (addend - back)
    inexact = np.isfinite(total) & (lost != 0) & (total.view(np.uint64) & np.uint64(1) == 0)
    odd = np.nextafter(total, np.where(lost > 0, np.inf, -np.inf))
    return np.where(inexact, odd, total).astype(np.float32)


def flush(values: Array) -> Array:
    """.ftz: 0 of the same sign for subnormal float32 values."""
    return np.where(np.abs(values) < np.finfo(np.float32).tiny, np.copysign(np.float32(0), values), values)


def flushing(function: Callable[..., Array]) -> Callable[..., Array]:
    """The .ftz form: subnormal operands and results become 0."""
    return lambda *operands: flush(function(*map(flush, operands)))


def approximate(function: Callable[..., Any]) -> Callable[..., Array]:
    """Computed in float64, rounded to float32."""
    return lambda *operands: function(*(values.astype(np.float64) for values in operands)).astype(np.float32)


def product(wide: np.dtype[Any]) -> Callable[[Array, Array], Array]:
    """mul.wide: all bits of the product."""
    return lambda a, b: a.astype(wide) * b.astype(wide)


def high(wide: np.dtype[Any]) -> Callable[[Array, Array], Array]:
    """mul.hi: the upper half of the bits of the product."""
    return lambda a, b: (product(wide)(a, b) >> wide.type(a.dtype.itemsize * 8)).astype(a.dtype)


def add_halves(a: Array, b: Array) -> Array:
    """add.s16x2: two sums of 16 bits, of which no carry gets from one to the other."""
    low, high = a + b & np.uint32(0xFFFF), (a >> np.uint32(16)) + (b >> np.uint32(16))
    return low | high << np.uint32(16)


def quotient(a: Array, b: Array) -> Array:
    """div of 32-bit integers, towards 0. Of 0 the result is unspecified: here all bits are set."""
    a, b, kind = a.astype(np.int64), b.astype(np.int64), a.dtype
    whole = np.abs(a) // np.maximum(np.abs(b), 1) * (np.sign(a) * np.sign(b))
    return np.where(b == 0, -1, whole).astype(kind)


def remainder(a: Array, b: Array) -> Array:
    """rem of 32-bit integers: a - quotient * b."""
    return a - quotient(a, b) * b


def shift_left(a: Array, by: Array) -> Array:
    """shl: by more than the width gives 0."""
    width = a.dtype.itemsize * 8
    return np.where(by >= width, a.dtype.type(0), a << np.minimum(by, width - 1).astype(a.dtype))


def shift_right(a: Array, by: Array) -> Array:
    """shr: by more than the width gives 0, or -1 for what is negative."""
    width = a.dtype.itemsize * 8
    shifted = a >> np.minimum(by, width - 1).astype(a.dtype)
    return shifted if a.dtype.kind == "i" else np.where(by >= width, a.dtype.type(0), shifted)


def select(a: Array, b: Array, where: Mask) -> Array:
    """selp"""
    return np.where(where, a, b)


def extract(a: Array, position: Array, length: Array) -> Array:
    """bfe of 32 bits: `length` bits from `position` on; beyond the last of them, or bit 31, comes 0 or the sign."""
    position, length = (values.astype(np.int64) & 255 for values in (position, length))
    # Within 64 bits, what extends a number is what stands above its bit 31.
    wide, size = a.astype(np.int64), np.minimum(length, 32)
    field = (wide >> np.minimum(position, 63)) & ((np.int64(1) << size) - 1)
    if a.dtype.kind == "i":
        last = np.clip(position + length - 1, 0, 31)
        field = np.where(wide >> last & 1 == 1, field | -(np.int64(1) << size), field)
    return np.where(length == 0, 0, field).astype(a.dtype)


def permute(a: Array, b: Array, selector: Array) -> Array:
    """prmt: each byte is one of the eight of {b, a}, or its sign repeated."""
    both = b.astype(np.uint64) << np.uint64(32) | a.astype(np.uint64)
    result = np.zeros_like(both, np.uint32)
    for i in range(4):
        choice = selector >> np.uint32(4 * i)
        byte = (both >> ((choice & np.uint32(7)) * np.uint32(8)).astype(np.uint64)).astype(np.uint32) & np.uint32(255)
        sign = np.where(byte & np.uint32(128), np.uint32(255), np.uint32(0))
        result |= np.where(choice & np.uint32(8), sign, byte) << np.uint32(8 * i)
    return result


def lookup(a: Array, b: Array, c: Array, table: Array) -> Array:
    """lop3: bit i of the result is the table's at a_i * 4 + b_i * 2 + c_i."""
    result = np.zeros_like(a | b | c)
    for index in range(8):
        here = (a if index & 4 else ~a) & (b if index & 2 else ~b) & (c if index & 1 else ~c)
        result |= np.where(table >> np.uint32(index) & np.uint32(1), here, np.uint32(0))
    return result


def count_ones(a: Array) -> Array:
    return np.bitwise_count(a).astype(np.uint32)


ROUNDINGS = {"rzi": np.trunc, "rni": np.rint, "rmi": np.floor, "rpi": np.ceil}


def to_integer(rounding: str, dtype: np.dtype[Any]) -> Callable[[Array], Array]:
    """cvt from float32: the nearest there is, 0 for NaN."""
    bounds = np.iinfo(dtype)

    def convert(a: Array) -> Array:
        whole = ROUNDINGS[rounding](a.astype(np.float64))
        return np.clip(np.where(np.isnan(whole), 0, whole), bounds.min, bounds.max).astype(dtype)

    return convert


def from_half(a: Array) -> Array:
    return a.view(np.float16).astype(np.float32)


def to_half(a: Array) -> Array:
    return a.astype(np.float16).view(np.uint16)


def from_bfloat(a: Array) -> Array:
    return (a.astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_bfloat(a: Array) -> Array:
    """To the nearest, ties to even."""
    bits = a.view(np.uint32)
    up = bits + np.uint32(0x7FFF) + (bits >> np.uint32(16) & np.uint32(1))
    return np.where(np.isnan(a), np.uint32(0x7FFF), up >> np.uint32(16)).astype(np.uint16)


def packed(function: Callable[..., Array]) -> Callable[..., Array]:
    """The f32x2 form of a float32 function: two independent numbers in 64 bits."""
    return lambda *pairs: np.ascontiguousarray(function(*(pair.view(np.float32) for pair in pairs))).view(UNSIGNED[64])
