"""The PTX machine's arithmetic against values computed by hand from the PTX manual, for every spelling it knows."""

from __future__ import annotations

import struct

import pytest
from ptx.elementwise import TABLE
from ptx.snippet import evaluate

Rows = list[tuple[int, ...]]


def f(value: float) -> int:
    """The bits of a float32."""
    return int(struct.unpack("<I", struct.pack("<f", value))[0])


def pair(low: float, high: float) -> int:
    return f(low) | f(high) << 32


INF, NAN, TINY = f(float("inf")), 0x7FC00000, 1  # TINY: 2^-149, a subnormal
LOW, HIGH = -(1 << 31), (1 << 31) - 1
LOW64, HIGH64 = -(1 << 63), (1 << 63) - 1

# Operand types and the result's, then rows of operands and of what has to come out.
INTEGERS: dict[str, tuple[str, Rows]] = {
    "add.s32": ("b32 b32 b32", [(3, -5, -2), (HIGH, 1, LOW)]),
    "add.u32": ("b32 b32 b32", [(3, 5, 8), (0xFFFFFFFF, 2, 1)]),
    "add.s64": ("b64 b64 b64", [(3, -5, -2), (0xFFFFFFFF, 1, 1 << 32), (HIGH64, 1, LOW64)]),
    "add.u64": ("b64 b64 b64", [(0xFFFFFFFF, 1, 1 << 32), (-1, 2, 1)]),
    "add.s16": ("b16 b16 b16", [(3, -5, -2), (0x7FFF, 1, 0x8000), (0xFFFF, 1, 0)]),
    "add.s16x2": ("b32 b32 b32", [(0x00010002, 0x00030004, 0x00040006), (0x0001FFFF, 0xFFFF0001, 0)]),
    "sub.s32": ("b32 b32 b32", [(3, 5, -2), (LOW, 1, HIGH)]),
    "sub.u32": ("b32 b32 b32", [(3, 5, 0xFFFFFFFE)]),
    "sub.s64": ("b64 b64 b64", [(1 << 32, 1, 0xFFFFFFFF)]),
    "sub.u64": ("b64 b64 b64", [(0, 1, -1)]),
    "mul.lo.s32": ("b32 b32 b32", [(-3, 5, -15), (0x10001, 0x10001, 0x20001)]),
    "mul.lo.u32": ("b32 b32 b32", [(0xFFFFFFFF, 0xFFFFFFFF, 1)]),
    "mul.lo.s64": ("b64 b64 b64", [(-3, 1 << 40, -3 << 40), (1 << 33, 1 << 33, 0)]),
    "mul.lo.u64": ("b64 b64 b64", [(-1, -1, 1)]),
    "mul.hi.s32": ("b32 b32 b32", [(-1, 1, -1), (1 << 30, 8, 2), (LOW, LOW, 1 << 30)]),
    "mul.hi.u32": ("b32 b32 b32", [(-1, 1, 0), (-1, -1, 0xFFFFFFFE)]),
    "mul.wide.s32": ("b32 b32 b64", [(-1, 2, -2), (LOW, LOW, 1 << 62)]),
    "mul.wide.u32": ("b32 b32 b64", [(-1, 2, 0x1FFFFFFFE)]),
    "mad.lo.s32": ("b32 b32 b32 b32", [(-3, 5, 7, -8)]),
    "mad.lo.u32": ("b32 b32 b32 b32", [(1 << 31, 2, 9, 9)]),
    "mad.lo.s64": ("b64 b64 b64 b64", [(-3, 1 << 40, 5, 5 - (3 << 40))]),
    "mad.lo.u64": ("b64 b64 b64 b64", [(-1, 1, 2, 1)]),
    "mad.wide.s32": ("b32 b32 b64 b64", [(-1, 2, 1 << 40, (1 << 40) - 2)]),
    "mad.wide.u32": ("b32 b32 b64 b64", [(-1, 2, 2, 0x200000000)]),
    "div.s32": ("b32 b32 b32", [(7, 2, 3), (-7, 2, -3), (7, -2, -3), (LOW, 1, LOW)]),
    "div.u32": ("b32 b32 b32", [(-1, 2, HIGH), (7, 8, 0)]),
    "rem.s32": ("b32 b32 b32", [(7, 2, 1), (-7, 2, -1), (7, -2, 1)]),
    "rem.u32": ("b32 b32 b32", [(-1, 16, 15)]),
    "min.s32": ("b32 b32 b32", [(-1, 1, -1), (LOW, HIGH, LOW)]),
    "min.u32": ("b32 b32 b32", [(-1, 1, 1)]),
    "min.s64": ("b64 b64 b64", [(-1, 1, -1), (1 << 40, 5, 5)]),
    "min.u64": ("b64 b64 b64", [(-1, 1, 1)]),
    "max.s32": ("b32 b32 b32", [(-1, 1, 1), (LOW, HIGH, HIGH)]),
    "max.u32": ("b32 b32 b32", [(-1, 1, -1)]),
    "max.s64": ("b64 b64 b64", [(-1, 1, 1), (1 << 40, 5, 1 << 40)]),
    "max.u64": ("b64 b64 b64", [(-1, 1, -1)]),
    "min.relu.s32": ("b32 b32 b32", [(-5, 3, 0), (5, 3, 3), (-5, -7, 0)]),
    "max.relu.s32": ("b32 b32 b32", [(-5, 3, 3), (-5, -7, 0)]),
    "neg.s32": ("b32 b32", [(5, -5), (LOW, LOW)]),
    "neg.s64": ("b64 b64", [(1 << 40, -(1 << 40))]),
    "abs.s32": ("b32 b32", [(-5, 5), (5, 5)]),
    "abs.s64": ("b64 b64", [(-(1 << 40), 1 << 40)]),
    "shr.s32": ("b32 b32 b32", [(-8, 1, -4), (-8, 32, -1), (8, 99, 0), (-8, -1, -1)]),
    "shr.u16": ("b16 b32 b16", [(0x8001, 1, 0x4000), (0x8000, 15, 1), (0x8000, 16, 0), (0x8000, -1, 0)]),
    "shr.u32": ("b32 b32 b32", [(-8, 1, 0x7FFFFFFC), (-8, 32, 0), (-8, -1, 0)]),
    "shr.s64": ("b64 b32 b64", [(-8, 1, -4), (-8, 64, -1)]),
    "shr.u64": ("b64 b32 b64", [(-8, 1, 0x7FFFFFFFFFFFFFFC), (-8, 64, 0)]),
    "bfe.u32": (
        "b32 b32 b32 b32",
        [(0xABCD, 4, 8, 0xBC), (-1, 28, 8, 0xF), (-1, 0, 32, -1), (-1, 5, 0, 0), (-1, 32, 1, 0)]
        + [(0xFF, 4 + 256, 2 + 256, 3)],
    ),
    "bfe.s32": (
        "b32 b32 b32 b32",
        [(0xABCD, 4, 8, -0x44), (0x7BCD, 4, 4, -4), (0x50, 4, 4, 5), (LOW, 28, 8, -8)]
        + [(HIGH, 28, 8, 7), (-1, 5, 0, 0), (LOW, 40, 3, -1), (LOW, 0, 32, LOW), (LOW, 0, 255, LOW)],
    ),
    "cvt.s32.u32": ("b32 b32", [(-1, -1)]),
    "cvt.s32.s64": ("b64 b32", [(0x1FFFFFFFF, -1)]),
    "cvt.s32.u64": ("b64 b32", [(0x1FFFFFFFF, -1)]),
    "cvt.u32.s32": ("b32 b32", [(-1, -1)]),
    "cvt.u32.s64": ("b64 b32", [(-1, -1)]),
    "cvt.u32.u64": ("b64 b32", [(0x512345678, 0x12345678)]),
    "cvt.s64.s32": ("b32 b64", [(-2, -2)]),
    "cvt.s64.u32": ("b32 b64", [(-2, 0xFFFFFFFE)]),
    "cvt.s64.u64": ("b64 b64", [(-2, -2)]),
    "cvt.u64.s32": ("b32 b64", [(-2, -2)]),
    "cvt.u64.u32": ("b32 b64", [(-2, 0xFFFFFFFE)]),
    "cvt.u64.s64": ("b64 b64", [(-2, -2)]),
    "cvt.u32.u16": ("b16 b32", [(0x8001, 0x8001)]),
    "cvt.s32.s16": ("b16 b32", [(0x8001, -0x7FFF)]),
    "cvt.u16.u32": ("b32 b16", [(0x12345, 0x2345)]),
}
BITS: dict[str, tuple[str, Rows]] = {
    "not.b16": ("b16 b16", [(0xFF00, 0x00FF)]),
    "not.b32": ("b32 b32", [(0xFF00, 0xFFFF00FF)]),
    "not.b64": ("b64 b64", [(0xFF00, ~0xFF00)]),
    "not.pred": ("pred pred", [(0, 1), (1, 0)]),
    "shl.b16": ("b16 b32 b16", [(0x8001, 1, 2), (1, 15, 0x8000), (1, 16, 0)]),
    "shl.b32": ("b32 b32 b32", [(0x80000001, 1, 2), (1, 31, LOW), (1, 32, 0), (1, -1, 0)]),
    "shl.b64": ("b64 b32 b64", [(1, 40, 1 << 40), (1, 64, 0)]),
    "shr.b16": ("b16 b32 b16", [(0x8000, 15, 1), (0x8000, 16, 0)]),
    "shr.b32": ("b32 b32 b32", [(LOW, 31, 1), (LOW, 32, 0)]),
    "shr.b64": ("b64 b32 b64", [(LOW64, 63, 1)]),
    "selp.b16": ("b16 b16 pred b16", [(1, 2, 1, 1), (1, 2, 0, 2)]),
    "selp.b32": ("b32 b32 pred b32", [(1, 2, 1, 1), (1, 2, 0, 2)]),
    "selp.b64": ("b64 b64 pred b64", [(1 << 40, 2, 1, 1 << 40), (1, 2, 0, 2)]),
    "selp.f32": ("b32 b32 pred b32", [(f(1.5), NAN, 1, f(1.5)), (f(1.5), NAN, 0, NAN)]),
    "popc.b32": ("b32 b32", [(0, 0), (-1, 32), (0x80000101, 3)]),
    "popc.b64": ("b64 b32", [(-1, 64), (1 << 40 | 1, 2)]),
    # Byte 8 + n of a selector: the sign of byte n, in all bits.
    "prmt.b32": (
        "b32 b32 b32 b32",
        [(0x33221100, 0x77665544, 0x7531, 0x77553311), (0x80, 0, 0x9810, 0x00FF0080)]
        + [(0x44332211, 0x88776655, 0x7770, 0x88888811), (1, 2, 0xFFFF0000, 0x01010101)],
    ),
    # 0x96: the parity of three; 0xE8: the majority; 0x80: all; 0xF0: a itself.
    "lop3.b32": (
        "b32 b32 b32 b32 b32",
        [(0b1100, 0b1010, 0b1111, 0x96, 0b1001), (0b1100, 0b1010, 0b0001, 0xE8, 0b1000)]
        + [(0b1100, 0b1010, 0b1111, 0x80, 0b1000), (0b1100, 0b1010, 1, 0xF0, 0b1100), (0, 0, 0, 1, -1)],
    ),
}
for _width in ("b16", "b32", "b64"):
    _kinds = f"{_width} {_width} {_width}"
    BITS[f"and.{_width}"] = _kinds, [(0b1100, 0b1010, 0b1000)]
    BITS[f"or.{_width}"] = _kinds, [(0b1100, 0b1010, 0b1110)]
    BITS[f"xor.{_width}"] = _kinds, [(0b1100, 0b1010, 0b0110)]
BITS["and.pred"] = "pred pred pred", [(0, 0, 0), (0, 1, 0), (1, 0, 0), (1, 1, 1)]
BITS["or.pred"] = "pred pred pred", [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 1)]
BITS["xor.pred"] = "pred pred pred", [(0, 0, 0), (0, 1, 1), (1, 0, 1), (1, 1, 0)]

ONE, TWO, THREE = "b32 b32", "b32 b32 b32", "b32 b32 b32 b32"
ADDITIONS = [(f(1.5), f(2), f(3.5)), (f(1), f(2.0**-24), f(1)), (f(1), f(3 * 2.0**-25), f(1) + 1), (TINY, TINY, 2)]
SUBTRACTIONS = [(f(1.5), f(2), f(-0.5)), (f(1), f(2.0**-25), f(1)), (2, TINY, 1)]
PRODUCTS = [(f(1.5), f(-2), f(-3)), (f(1) + 1, f(1) + 1, f(1) + 2), (f(2.0**-100), f(2.0**-49), TINY), (INF, f(2), INF)]
# (1 + 2^-23)^2 = 1 + 2^-22 + 2^-46: only one rounding leaves the last term.
FUSED = [(f(1) + 1, f(1) + 1, f(-1 - 2.0**-22), f(2.0**-46)), (f(2), f(3), f(4), f(10)), (f(0), INF, f(1), NAN)]
# Products of 2^-24 (1 + 2^-36) and 2^-24 (1 - 2^-46), half of the last bit and a little: in float64 these are ties.
FUSED += [(f(2.0**-24 * (1 + 2.0**-12)), f(1 - 2.0**-12 + 2.0**-24), f(1), f(1) + 1)]
FUSED += [(f(2.0**-24 * (1 + 2.0**-23)), f(1 - 2.0**-23), f(1) + 1, f(1) + 1)]
MINIMA = [
    (f(1), f(-2), f(-2)),
    (f(1), NAN, f(1)),
    (NAN, f(1), f(1)),
    (f(0), f(-0.0), f(-0.0)),
    (f(-0.0), f(0), f(-0.0)),
]
MAXIMA = [(f(1), f(-2), f(1)), (f(1), NAN, f(1)), (NAN, f(1), f(1)), (f(0), f(-0.0), f(0)), (f(-0.0), f(0), f(0))]
FLOATS: dict[str, tuple[str, Rows]] = {
    "neg.f32": (ONE, [(f(1.5), f(-1.5)), (f(0), f(-0.0)), (INF, f(float("-inf")))]),
    "abs.f32": (ONE, [(f(-1.5), f(1.5)), (f(-0.0), f(0))]),
    "fma.rn.f32": (THREE, FUSED + [(TINY, f(1), f(0), TINY)]),
    "fma.rn.ftz.f32": (THREE, FUSED + [(TINY, f(1), f(0), f(0)), (f(2.0**-100), f(2.0**-30), f(0), f(0))]),
    # Of 1 / 3 the bits are 01 01 01 ... 01 01|01 and what follows: rounded up. 2^-149 / 2 is a tie, which goes to 0.
    "div.rn.f32": (
        TWO,
        [(f(3), f(2), f(1.5)), (f(1), f(3), 0x3EAAAAAB), (TINY, f(2), f(0)), (3, f(2), 2), (f(-1), INF, f(-0.0))]
        + [(f(1), f(0), INF), (f(1), f(-0.0), f(float("-inf"))), (f(1), NAN, NAN)],
    ),
    "div.full.f32": (TWO, [(f(3), f(2), f(1.5)), (f(1), f(0), INF), (f(-1), INF, f(-0.0))]),
    "ex2.approx.f32": (ONE, [(f(3), f(8)), (f(-149), TINY), (f(float("-inf")), f(0)), (TINY, f(1))]),
    "ex2.approx.ftz.f32": (ONE, [(f(3), f(8)), (f(-127), f(0)), (f(-126), f(2.0**-126)), (f(0.5), 0x3FB504F3)]),
    "lg2.approx.f32": (ONE, [(f(8), f(3)), (f(0), f(float("-inf"))), (TINY, f(-149)), (INF, INF)]),
    "lg2.approx.ftz.f32": (ONE, [(f(8), f(3)), (TINY, f(float("-inf")))]),
    "rcp.approx.f32": (ONE, [(f(4), f(0.25)), (f(-0.0), f(float("-inf"))), (f(2.0**127), f(2.0**-127))]),
    "rcp.approx.ftz.f32": (ONE, [(f(4), f(0.25)), (TINY, INF), (f(2.0**127), f(0))]),
    "cvt.rn.f32.s32": (ONE, [(-3, f(-3)), ((1 << 24) + 1, f(1 << 24)), ((1 << 24) + 3, f((1 << 24) + 4))]),
    "cvt.rn.f32.u32": (ONE, [(-1, f(2.0**32)), (5, f(5))]),
    "cvt.rn.f32.s64": ("b64 b32", [(-3, f(-3)), (1 << 40, f(2.0**40)), (LOW64, f(-(2.0**63)))]),
    "cvt.rn.f32.u64": ("b64 b32", [(-1, f(2.0**64))]),
    "cvt.rzi.s32.f32": (ONE, [(f(-1.9), -1), (f(1e10), HIGH), (f(-1e10), LOW), (NAN, 0), (INF, HIGH)]),
    "cvt.rni.s32.f32": (ONE, [(f(0.5), 0), (f(1.5), 2), (f(-2.5), -2)]),
    "cvt.rmi.s32.f32": (ONE, [(f(-1.1), -2), (f(1.9), 1)]),
    "cvt.rpi.s32.f32": (ONE, [(f(-1.9), -1), (f(1.1), 2)]),
    "cvt.rzi.u32.f32": (ONE, [(f(-1.9), 0), (f(3e9), 3000000000), (f(1e10), -1), (NAN, 0)]),
    "cvt.rni.u32.f32": (ONE, [(f(2.5), 2)]),
    "cvt.rmi.u32.f32": (ONE, [(f(2.9), 2)]),
    "cvt.rpi.u32.f32": (ONE, [(f(2.1), 3)]),
    "cvt.rzi.f32.f32": (ONE, [(f(-1.9), f(-1))]),
    "cvt.rni.f32.f32": (ONE, [(f(2.5), f(2)), (f(-0.5), f(-0.0))]),
    "cvt.rmi.f32.f32": (ONE, [(f(-1.1), f(-2))]),
    "cvt.rpi.f32.f32": (ONE, [(f(1.1), f(2))]),
    "cvt.f32.f16": ("b16 b32", [(0x3C00, f(1)), (0x0001, f(2.0**-24)), (0xFC00, f(float("-inf"))), (0x7BFF, f(65504))]),
    "cvt.rn.f16.f32": ("b32 b16", [(f(1), 0x3C00), (f(65520), 0x7C00), (f(1 + 2.0**-11), 0x3C00), (f(2.0**-25), 0)]),
    "cvt.f32.bf16": ("b16 b32", [(0x3F80, f(1)), (0xC000, f(-2)), (0x0001, 0x10000)]),
    "cvt.rn.bf16.f32": (
        "b32 b16",
        [(f(1), 0x3F80), (0x3F808000, 0x3F80), (0x3F818000, 0x3F82), (0x3F808001, 0x3F81)]
        + [(NAN, 0x7FFF), (0x7F7FFFFF, 0x7F80)],
    ),
    "add.rn.f32.f16": ("b16 b32 b32", [(0x3C00, f(0.5), f(1.5))]),
    "sub.rn.f32.f16": ("b16 b32 b32", [(0x3C00, f(0.5), f(0.5)), (0xFC00, f(1), f(float("-inf")))]),
    "add.rn.f32.bf16": ("b16 b32 b32", [(0x3F80, f(0.5), f(1.5))]),
    "sub.rn.f32.bf16": ("b16 b32 b32", [(0x3F80, f(1.5), f(-0.5))]),
    "fma.rn.f32x2": ("b64 b64 b64 b64", [(pair(2, 3), pair(5, 7), pair(1, 2), pair(11, 23))]),
}
for _name, _rows, _both in (
    ("add", ADDITIONS, (pair(1, 2), pair(10, -20), pair(11, -18))),
    ("sub", SUBTRACTIONS, (pair(1, 2), pair(10, -20), pair(-9, 22))),
    ("mul", PRODUCTS, (pair(3, 2), pair(10, -20), pair(30, -40))),
):
    for _rounding in ("", ".rn"):
        FLOATS[f"{_name}{_rounding}.f32"] = TWO, list(_rows)
        FLOATS[f"{_name}{_rounding}.f32x2"] = "b64 b64 b64", [_both]
OF_THREE: dict[str, Rows] = {
    "min.f32": [(f(3), f(1), f(2), f(1)), (NAN, f(3), f(2), f(2)), (NAN, NAN, f(2), f(2))],
    "max.f32": [(f(3), f(4), f(2), f(4)), (NAN, f(1), f(2), f(2)), (f(5), f(1), NAN, f(5))],
}
FLOATS["min.f32"], FLOATS["max.f32"] = (TWO, MINIMA), (TWO, MAXIMA)

# Whether a comparison holds of less, equal, greater, and where there is a NaN.
MODES = {"lt": "1000", "le": "1100", "eq": "0100", "ge": "0110", "gt": "0010", "ne": "1010", "num": "1110"}
MODES |= {"ltu": "1001", "leu": "1101", "equ": "0101", "geu": "0111", "gtu": "0011", "neu": "1011", "nan": "0001"}
SAME = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}  # unsigned
# Smaller and larger, which differ from their order as the other type.
ORDERED = {"s": (-1, 1), "u": (1, -1), "b": (1, -1)}


def comparisons() -> dict[str, tuple[str, Rows]]:
    cases: dict[str, tuple[str, Rows]] = {}
    for mode, holds in MODES.items():
        less, equal, greater, unordered = map(int, holds)
        a, b = f(-2), f(1)
        rows = [(a, b, less), (a, a, equal), (b, a, greater), (NAN, a, unordered), (a, NAN, unordered)]
        cases[f"setp.{mode}.f32"] = "b32 b32 pred", [*rows, (f(0), f(-0.0), equal)]
    kinds = [(kind, width) for kind in "sub" for width in (32, 64)] + [("b", 16)]
    for kind, width in kinds:
        for mode in (
            ("eq", "ne") if kind == "b" else ("eq", "ne", "lt", "le", "gt", "ge", *(SAME if kind == "u" else ()))
        ):
            less, equal, greater, _ = map(int, MODES[SAME.get(mode, mode)])
            a, b = ORDERED[kind]
            rows = [(a, b, less), (a, a, equal), (b, a, greater)]
            cases[f"setp.{mode}.{kind}{width}"] = f"b{width} b{width} pred", rows
    return cases


CASES = INTEGERS | BITS | FLOATS | comparisons()


def check(spelling: str, kinds: str, rows: Rows) -> None:
    types = kinds.split()
    width = 32 if types[-1] == "pred" else int(types[-1][1:])
    found = evaluate(spelling, types, [row[:-1] for row in rows])
    for row, value in zip(rows, found, strict=True):
        expected = row[-1] & ((1 << width) - 1)
        # All NaN are one.
        both_nan = expected == NAN and width == 32 and value & 0x7FFFFFFF > INF
        assert value == expected or both_nan, (spelling, row[:-1], hex(value), hex(expected))


@pytest.mark.parametrize("spelling", CASES)
def test_values(spelling: str) -> None:
    check(spelling, *CASES[spelling])


@pytest.mark.parametrize("spelling", OF_THREE)
def test_of_three(spelling: str) -> None:
    check(spelling, THREE, OF_THREE[spelling])


def test_every_spelling_is_tested() -> None:
    tested = {(spelling, len(kinds.split()) - 1) for spelling, (kinds, _) in CASES.items()}
    assert tested | {(spelling, 3) for spelling in OF_THREE} == set(TABLE)
