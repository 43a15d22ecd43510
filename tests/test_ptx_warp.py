"""The PTX machine's shuffles, votes, reductions, matrices, atomics and moves against the PTX manual."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from ptx import launch
from ptx.access import ATOMICS
from ptx.faults import InactiveLane, Misaligned, Unsupported
from ptx.snippet import module, run
from ptx.warp import REDUCTIONS, VOTES
from test_ptx_machine import MY_SHARED, MY_WORD, results, words

LANES = range(32)
HALF = "setp.lt.s32 %p1, %r90, 16;"


def shuffled(instruction: str) -> list[int]:
    """What lanes get of 100 + their number; 1000 more where the predicate holds."""
    body = f"add.s32 %r1, %r90, 100;\n{instruction}\nselp.b32 %r3, 1000, 0, %p1;\nadd.s32 %r99, %r2, %r3;"
    return results(body)


SHUFFLES = {
    "bfly.b32 %r2|%p1, %r1, 5, 31, -1;": [1100 + (i ^ 5) for i in LANES],
    "up.b32 %r2|%p1, %r1, 3, 0, -1;": [1097 + i if i >= 3 else 100 + i for i in LANES],
    "down.b32 %r2|%p1, %r1, 3, 31, -1;": [1103 + i if i < 29 else 100 + i for i in LANES],
    "idx.b32 %r2|%p1, %r1, 7, 31, -1;": [1107] * 32,
    # In segments of 8 lanes (the mask 11000 in bits 8 to 12): the last lane of each is 7 more than its first.
    "up.b32 %r2|%p1, %r1, 1, 6144, -1;": [1099 + i if i % 8 else 100 + i for i in LANES],
    "down.b32 %r2|%p1, %r1, 1, 6175, -1;": [1101 + i if i % 8 < 7 else 100 + i for i in LANES],
    "idx.b32 %r2|%p1, %r1, 2, 6175, -1;": [1102 + i // 8 * 8 for i in LANES],
    "bfly.b32 %r2|%p1, %r1, 16, 6175, -1;": [100 + i if i < 16 else 1084 + i for i in LANES],
    # A clamp of 4: lanes beyond it are not read.
    "idx.b32 %r2|%p1, %r1, %r90, 4, -1;": [1100 + i if i <= 4 else 100 + i for i in LANES],
}


@pytest.mark.parametrize("operands", SHUFFLES)
def test_shuffles(operands: str) -> None:
    assert shuffled(f"shfl.sync.{operands}") == SHUFFLES[operands]


def test_shuffles_without_a_predicate_in_each_warp() -> None:
    assert results("shfl.sync.idx.b32 %r99, %r90, 3, 31, -1;", 64) == [3] * 32 + [35] * 32


COLLECTIVE = [
    "shfl.sync.bfly.b32 %r99, %r90, 1, 31, {};",
    "redux.sync.add.s32 %r99, %r90, {};",
    "vote.sync.any.pred %p3, %p1, {};",
]


@pytest.mark.parametrize("instruction", COLLECTIVE)
def test_all_named_lanes_take_part(instruction: str) -> None:
    parted = f"{HALF}\nmov.b32 %r99, 0;\n@!%p1 bra $L__END;\n{instruction}\n$L__END:"
    guarded = f"{HALF}\nmov.b32 %r99, 0;\n@%p1 {instruction}"
    for body in (parted, guarded):
        results(body.format("0xFFFF"))
        with pytest.raises(InactiveLane, match="thread 0 names the lanes 0xffffffff"):
            results(body.format("-1"))


def test_lanes_that_do_not_name_themselves() -> None:
    with pytest.raises(InactiveLane):
        results("redux.sync.add.s32 %r99, %r90, 0xFFFF;")


def test_a_shuffle_from_a_lane_that_is_not_active() -> None:
    body = f"{HALF}\nmov.b32 %r99, 0;\n@!%p1 bra $L__END;\nshfl.sync.bfly.b32 %r99, %r90, 16, 31, 0xFFFF;\n$L__END:"
    with pytest.raises(InactiveLane, match="thread 0 reads from thread 16, which is not active"):
        results(body)


def test_votes() -> None:
    assert set(VOTES) == {f"vote.sync.{name}" for name in ("all.pred", "any.pred", "ballot.b32")}
    body = "setp.lt.s32 %p1, %r90, {};\nvote.sync.{}.pred %p2, %p1, -1;\nselp.b32 %r99, 1, 0, %p2;"
    assert results(body.format(32, "all"), 64) == [1] * 32 + [0] * 32
    assert results(body.format(40, "all"), 64) == [1] * 32 + [0] * 32
    assert results(body.format(40, "any"), 96) == [1] * 64 + [0] * 32
    assert results(body.format(32, "any"), 64) == [1] * 32 + [0] * 32
    assert (
        results("setp.gt.s32 %p1, %r90, 29;\nvote.sync.ballot.b32 %r99, %p1, -1;", 64)
        == [3 << 30] * 32 + [0xFFFFFFFF] * 32
    )


def test_votes_of_some() -> None:
    """Lanes that take no part say neither yes nor no."""
    body = "{}\nmov.b32 %r99, 9;\n@!%p1 bra $L__END;\nsetp.{} %p2, %r90, {};\n{}\nselp.b32 %r99, 1, 0, %p2;\n$L__END:"
    yes = results(body.format(HALF, "lt.s32", 16, "vote.sync.all.pred %p2, %p2, 0xFFFF;"))
    assert yes == [1] * 16 + [9] * 16
    no = results(body.format(HALF, "ge.s32", 16, "vote.sync.any.pred %p2, %p2, 0xFFFF;"))
    assert no == [0] * 16 + [9] * 16


NAN, NEGATIVE_ZERO = 0x7FC00000, 0x80000000
# What the 32 lanes have (lane 0 first, the others the last value), and what comes of it.
REDUCED = [
    ("add.s32", [5, -1], (5 - 31) & 0xFFFFFFFF),
    ("add.u32", [0xFFFFFFFF, 1], 30),
    ("min.s32", [-5, 3], -5 & 0xFFFFFFFF),
    ("max.s32", [-5, 3], 3),
    ("min.u32", [-5, 3], 3),
    ("max.u32", [-5, 3], -5 & 0xFFFFFFFF),
    ("and.b32", [0b1100, 0b1010], 0b1000),
    ("or.b32", [0b1100, 0b1010], 0b1110),
    ("xor.b32", [0b1100, 0b1010], 0b1100 ^ 0b1010),
    ("max.f32", [NAN, 0x3F800000], 0x3F800000),
    ("max.f32", [0, NEGATIVE_ZERO], 0),
    ("min.f32", [NAN, 0x3F800000], 0x3F800000),
    ("min.f32", [0, NEGATIVE_ZERO], NEGATIVE_ZERO),
]


@pytest.mark.parametrize(("name", "values", "expected"), REDUCED)
def test_reductions(name: str, values: list[int], expected: int) -> None:
    first, rest = values
    body = f"setp.eq.s32 %p1, %r90, 0;\nselp.b32 %r1, {first}, {rest}, %p1;\nredux.sync.{name} %r99, %r1, -1;"
    assert results(body) == [expected] * 32


def test_every_reduction_is_tested() -> None:
    assert set(REDUCTIONS) == {f"redux.sync.{name}" for name, _, _ in REDUCED}


def test_reductions_of_some() -> None:
    """Lanes that take no part count for nothing, and keep what they had."""
    for name, expected in {"add.s32": 120, "min.s32": 0, "max.s32": 15, "and.b32": 0, "min.u32": 0}.items():
        body = f"{HALF}\nmov.b32 %r99, 9;\n@!%p1 bra $L__END;\nredux.sync.{name} %r99, %r90, 0xFFFF;\n$L__END:"
        assert results(body) == [expected] * 16 + [9] * 16


def test_matrices() -> None:
    """Row r is at the address that lane r gives; lane i has its two halves i % 4 * 2 and the next."""
    rows = "shl.b32 %r1, %r90, 4;\nand.b32 %r1, %r1, 112;\nsub.s32 %r2, 112, %r1;"
    store = "stmatrix.sync.aligned.m8n8.x1.shared.b16 [%r1], {%r90};"
    assert results(f"{rows}\n{store}\nbar.sync 0;\n{MY_SHARED}\nld.shared.b32 %r99, [%r81];", shared=128) == [*LANES]
    load = "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r99}, [%r2];"
    turned = [(7 - i // 4) * 4 + i % 4 for i in LANES]
    assert results(f"{rows}\n{store}\nbar.sync 0;\n{load}", shared=128) == turned
    with pytest.raises(Misaligned):
        results(f"{rows}\n{store.replace('[%r1]', '[%r1+4]')}\nmov.b32 %r99, 0;", shared=144)
    with pytest.raises(InactiveLane):
        results(f"{rows}\n{HALF}\n@%p1 {store}\nmov.b32 %r99, 0;", shared=128)


@pytest.mark.parametrize("count", [2, 4])
def test_several_matrices(count: int) -> None:
    """Lane 8 m + r gives the address of row r of matrix m: here the rows from the last one to the first."""
    rows = f"sub.s32 %r1, {8 * count - 1}, %r90;\nand.b32 %r1, %r1, {8 * count - 1};\nshl.b32 %r1, %r1, 4;"
    values = [f"add.s32 %r{2 + m}, %r90, {32 * m};" for m in range(count)]
    registers = ", ".join(f"%r{2 + m}" for m in range(count))
    store = f"stmatrix.sync.aligned.m8n8.x{count}.shared.b16 [%r1], {{{registers}}};"
    for part in range(count):
        load = f"{MY_SHARED}\nld.shared.b32 %r99, [%r81+{128 * part}];"
        body = "\n".join([rows, *values, store, "bar.sync 0;", load])
        # Word w of the whole is in row w // 4 from the end.
        words = [(8 * count - 1 - w // 4) * 4 + w % 4 for w in range(32 * part, 32 * part + 32)]
        assert results(body, shared=128 * count) == words


# A word before and after each of 32 lanes gave its number to it.
ATOMIC = [
    ("add.u32", 100, 100 + 496),
    ("add.s32", 0xFFFFFFFF, 495),
    ("min.s32", 5, 0),
    ("min.u32", 0xFFFFFFFF, 0),
    ("max.s32", 0xFFFFFFFF, 31),
    ("max.u32", 0xFFFFFFFF, 0xFFFFFFFF),
    ("and.b32", 0xFFFFFFFF, 0),
    ("or.b32", 64, 95),
    ("xor.b32", 1, 1),
]


@pytest.mark.parametrize("opcode", ["red.global", "red.global.gpu.relaxed", "red.global.gpu.acq_rel"])
@pytest.mark.parametrize(("operation", "before", "after"), ATOMIC)
def test_atomics(opcode: str, operation: str, before: int, after: int) -> None:
    word = np.array([before], np.uint32)
    run(f"{opcode}.{operation} [%rd90], %r90;", word)
    assert word[0] == after


def test_atomics_return_what_was_there_in_an_order_of_chance() -> None:
    orders = []
    for seed in range(3):
        word, out = np.zeros(1, np.uint32), words()
        body = f"{MY_WORD}\natom.global.add.u32 %r99, [%rd91], 2;\nst.global.b32 [%rd80], %r99;"
        run(body, out, word, seed=seed)
        assert word[0] == 64 and sorted(out) == [2 * i for i in LANES]
        orders.append(out.tolist())
    assert orders[0] != orders[1] != orders[2]


def test_atomics_of_other_kinds() -> None:
    swapped = (
        "st.shared.b32 [%r81], 0;\nbar.sync 0;\natom.shared.exch.b32 %r99, [%r81], %r90;\nld.shared.b32 %r99, [%r81];"
    )
    assert results(f"{MY_SHARED}\n{swapped}", shared=128) == [*LANES]
    word = np.array([3], np.uint32)
    run("atom.global.cas.b32 %r1, [%rd90], 3, 40;\natom.global.cas.b32 %r1, [%rd90], 3, 50;", word)
    assert word[0] == 40
    wide = np.array([1 << 40, 0, 5, 5], np.uint64)
    body = "red.global.add.u64 [%rd90], 1;\nred.global.max.s64 [%rd90+8], 7;\nred.global.min.u64 [%rd90+16], 2;"
    run(f"{body}\nred.global.xor.b64 [%rd90+24], 1;", wide)
    assert wide.tolist() == [(1 << 40) + 32, 7, 2, 5]
    half = np.array([0.5], np.float32)
    run("red.global.add.f32 [%rd90], 0f3F800000;", half)
    assert half[0] == 32.5


def test_every_atomic_operation_is_tested() -> None:
    assert {name for _, name in ATOMICS.values()} == {name.split(".")[0] for name, _, _ in ATOMIC} | {"exch", "cas"}


def test_vectors_and_bytes() -> None:
    """Element i of a vector is at i times its size; bytes fill up with zeros, and are cut off."""
    data = np.arange(128, dtype=np.uint32)
    out = words()
    address = "mul.wide.u32 %rd1, %r90, 16;\nadd.s64 %rd1, %rd1, %rd91;"
    load = "ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%rd1];\nmad.lo.s32 %r99, %r1, 1000, %r4;"
    run(f"{MY_WORD}\n{address}\n{load}\nst.global.b32 [%rd80], %r99;", out, data)
    assert out.tolist() == [4 * i * 1000 + 4 * i + 3 for i in LANES]
    data[0] = 0x8081FFFE
    run(
        "ld.global.b8 %rs1, [%rd90+3];\ncvt.u32.u16 %r1, %rs1;\nadd.s32 %r1, %r1, 256;\nst.global.b8 [%rd90], %r1;",
        data,
    )
    assert data[0] == 0x8081FF80
    run("mov.b64 %rd1, 81985529216486895;\nst.global.v2.b64 [%rd90], {%rd1, 2};", data)
    assert data[:4].tolist() == [0x89ABCDEF, 0x1234567, 2, 0]


def test_moves() -> None:
    """Halves of a register, the first of which is the lower."""
    joined = "mov.b64 %rd1, {%r90, 7};\nshr.u64 %rd1, %rd1, 31;\nmov.b64 {%r1, _}, %rd1;\nadd.s32 %r99, %r1, %r90;"
    assert results(joined) == [14 + i for i in LANES]
    split = "mov.b32 %r1, 0x12345678;\nmov.b32 {%rs1, %rs2}, %r1;\nmov.b32 %r99, {%rs2, %rs1};"
    assert results(split) == [0x56781234] * 32
    # Half of nothing, as vectorised code has it, is garbage.
    assert results("mov.b64 %rd1, {%r90, %r5};\nmov.b64 {_, %r99}, %rd1;") == [0xCDCDCDCD] * 32
    special = "mov.u32 %r1, %ntid.x;\nmov.u32 %r2, %laneid;\nmad.lo.s32 %r99, %r1, 100, %r2;"
    assert results(special, 64) == [6400 + i % 32 for i in range(64)]


def test_parameters() -> None:
    """Integers of either sign, floats, and an argument too many or too few."""
    take = "ld.param.b32 %r1, [a];\nld.param.f32 %r2, [b];\nadd.s32 %r99, %r1, %r2;"
    text = module(f"{MY_WORD}\n{take}\nst.global.b32 [%rd80], %r99;", 1)
    text = text.replace("snippet_param_0\n)", "snippet_param_0,\n\t.param .u32 a,\n\t.param .f32 b\n)")
    compiled = SimpleNamespace(asm={"ptx": text}, metadata=SimpleNamespace(shared=0))
    out = words()
    launch.execute(compiled, (1, 1, 1), [out, -1, 1.0])
    assert out.tolist() == [0x3F7FFFFF] * 32
    with pytest.raises(ValueError, match="expected 32 bits"):
        launch.execute(compiled, (1,), [out, 1 << 32, 1.0])
    for arguments in ([out, 1], [out, 1, 1.0, 2]):
        with pytest.raises(Unsupported, match="arguments for 3 parameters"):
            launch.execute(compiled, (1,), arguments)
