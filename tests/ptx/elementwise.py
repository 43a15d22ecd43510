"""The table of instructions that take and give registers of a lane: whole spellings, and how many operands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptx import arithmetic as ar
from ptx.types import DTYPES


@dataclass(frozen=True)
class Elementwise:
    result: str  # PTX types
    operands: tuple[str, ...]
    function: Callable[..., Any]


TABLE: dict[tuple[str, int], Elementwise] = {}


def _define(spelling: str, result: str, operands: tuple[str, ...], function: Callable[..., Any]) -> None:
    key = spelling, len(operands)
    if key in TABLE:
        raise ValueError(f"{spelling} is defined twice")
    TABLE[key] = Elementwise(result, operands, function)


def _define_integers() -> None:
    types = ("s32", "u32", "s64", "u64")
    for t in types:
        dtype = DTYPES[t]
        _define(f"add.{t}", t, (t, t), np.add)
        _define(f"sub.{t}", t, (t, t), np.subtract)
        _define(f"mul.lo.{t}", t, (t, t), np.multiply)
        _define(f"mad.lo.{t}", t, (t, t, t), lambda a, b, c: a * b + c)
        _define(f"min.{t}", t, (t, t), np.minimum)
        _define(f"max.{t}", t, (t, t), np.maximum)
        _define(f"shr.{t}", t, (t, "u32"), ar.shift_right)
        for s in types:
            if s != t:
                # An integer is extended by its own type's rule, and cut off.
                _define(f"cvt.{t}.{s}", t, (s,), lambda a, dtype=dtype: a.astype(dtype))
    for t, s in (("u32", "u16"), ("s32", "s16"), ("u16", "u32")):
        _define(f"cvt.{t}.{s}", t, (s,), lambda a, dtype=DTYPES[t]: a.astype(dtype))
    for t, wide in (("s32", "s64"), ("u32", "u64")):
        multiply = ar.product(DTYPES[wide])
        _define(f"mul.wide.{t}", wide, (t, t), multiply)
        _define(f"mad.wide.{t}", wide, (t, t, wide), lambda a, b, c, multiply=multiply: multiply(a, b) + c)
        _define(f"mul.hi.{t}", t, (t, t), ar.high(DTYPES[wide]))
        _define(f"div.{t}", t, (t, t), ar.quotient)
        _define(f"rem.{t}", t, (t, t), ar.remainder)
        _define(f"bfe.{t}", t, (t, "u32", "u32"), ar.extract)
    for t in ("s32", "s64"):
        _define(f"neg.{t}", t, (t,), np.negative)
        _define(f"abs.{t}", t, (t,), np.abs)
    _define("add.s16", "s16", ("s16", "s16"), np.add)
    _define("add.s16x2", "b32", ("b32", "b32"), ar.add_halves)
    _define("shr.u16", "u16", ("u16", "u32"), ar.shift_right)
    _define("min.relu.s32", "s32", ("s32", "s32"), ar.relu(np.minimum))
    _define("max.relu.s32", "s32", ("s32", "s32"), ar.relu(np.maximum))


def _define_bits() -> None:
    for t in ("b16", "b32", "b64", "pred"):
        _define(f"and.{t}", t, (t, t), np.bitwise_and)
        _define(f"or.{t}", t, (t, t), np.bitwise_or)
        _define(f"xor.{t}", t, (t, t), np.bitwise_xor)
        _define(f"not.{t}", t, (t,), np.invert)
    for t in ("b16", "b32", "b64"):
        _define(f"shl.{t}", t, (t, "u32"), ar.shift_left)
        _define(f"shr.{t}", t, (t, "u32"), ar.shift_right)
    for t in ("b16", "b32", "b64", "f32"):
        _define(f"selp.{t}", t, (t, t, "pred"), ar.select)
    for t in ("b32", "b64"):
        _define(f"popc.{t}", "u32", (t,), ar.count_ones)
    _define("prmt.b32", "b32", ("b32", "b32", "b32"), ar.permute)
    _define("lop3.b32", "b32", ("b32", "b32", "b32", "b32"), ar.lookup)


def _define_comparisons() -> None:
    equality: dict[str, Callable[..., Any]] = {"eq": np.equal, "ne": np.not_equal}
    order = {"lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
    unsigned = {"lo": np.less, "ls": np.less_equal, "hi": np.greater, "hs": np.greater_equal}
    kinds = {"b16": equality}
    for width in (32, 64):
        kinds |= {f"b{width}": equality, f"s{width}": equality | order, f"u{width}": equality | order | unsigned}
    for t, modes in kinds.items():
        for mode, function in modes.items():
            _define(f"setp.{mode}.{t}", "pred", (t, t), function)
    # With a NaN every comparison fails, ne too; and each that ends in u holds.
    ordered = equality | order | {"ne": lambda a, b: (a < b) | (a > b)}
    for mode, function in ordered.items():
        _define(f"setp.{mode}.f32", "pred", ("f32", "f32"), function)
    opposite = {"equ": "ne", "neu": "eq", "ltu": "ge", "leu": "gt", "gtu": "le", "geu": "lt"}
    for mode, other in opposite.items():
        _define(f"setp.{mode}.f32", "pred", ("f32", "f32"), lambda a, b, f=ordered[other]: ~f(a, b))
    _define("setp.num.f32", "pred", ("f32", "f32"), lambda a, b: ~(np.isnan(a) | np.isnan(b)))
    _define("setp.nan.f32", "pred", ("f32", "f32"), lambda a, b: np.isnan(a) | np.isnan(b))


def _define_floats() -> None:
    one, two, three = ("f32",), ("f32",) * 2, ("f32",) * 3
    for name, function in {"add": np.add, "sub": np.subtract, "mul": np.multiply}.items():
        for spelling in (f"{name}.f32", f"{name}.rn.f32"):
            _define(spelling, "f32", two, function)
        for spelling in (f"{name}.f32x2", f"{name}.rn.f32x2"):
            _define(spelling, "f32x2", ("f32x2",) * 2, ar.packed(function))
    _define("fma.rn.f32", "f32", three, ar.fused)
    _define("fma.rn.ftz.f32", "f32", three, ar.flushing(ar.fused))
    _define("fma.rn.f32x2", "f32x2", ("f32x2",) * 3, ar.packed(ar.fused))
    _define("min.f32", "f32", two, ar.minimum)
    _define("max.f32", "f32", two, ar.maximum)
    # Of three, as sm_100 has them.
    _define("min.f32", "f32", three, lambda a, b, c: ar.minimum(ar.minimum(a, b), c))
    _define("max.f32", "f32", three, lambda a, b, c: ar.maximum(ar.maximum(a, b), c))
    _define("neg.f32", "f32", one, np.negative)
    _define("abs.f32", "f32", one, np.abs)
    _define("div.rn.f32", "f32", two, np.divide)
    _define("div.full.f32", "f32", two, ar.approximate(np.divide))
    for name, of_one in {"ex2": np.exp2, "lg2": np.log2, "rcp": np.reciprocal}.items():
        _define(f"{name}.approx.f32", "f32", one, ar.approximate(of_one))
        _define(f"{name}.approx.ftz.f32", "f32", one, ar.flushing(ar.approximate(of_one)))
    # A float32 less a 16-bit float, exact but for one rounding: sm_100 converts as it subtracts.
    for t, widen in {"f16": ar.from_half, "bf16": ar.from_bfloat}.items():
        _define(f"sub.rn.f32.{t}", "f32", (t, "f32"), lambda a, c, widen=widen: widen(a) - c)
        _define(f"add.rn.f32.{t}", "f32", (t, "f32"), lambda a, c, widen=widen: widen(a) + c)


def _define_conversions() -> None:
    for t in ("s32", "u32", "s64", "u64"):
        _define(f"cvt.rn.f32.{t}", "f32", (t,), lambda a: a.astype(np.float32))
    for t in ("s32", "u32"):
        for rounding in ar.ROUNDINGS:
            _define(f"cvt.{rounding}.{t}.f32", t, ("f32",), ar.to_integer(rounding, DTYPES[t]))
    for rounding, function in ar.ROUNDINGS.items():
        _define(f"cvt.{rounding}.f32.f32", "f32", ("f32",), function)
    _define("cvt.f32.f16", "f32", ("f16",), ar.from_half)
    _define("cvt.rn.f16.f32", "f16", ("f32",), ar.to_half)
    _define("cvt.f32.bf16", "f32", ("bf16",), ar.from_bfloat)
    _define("cvt.rn.bf16.f32", "bf16", ("f32",), ar.to_bfloat)


_define_integers()
_define_bits()
_define_comparisons()
_define_floats()
_define_conversions()
