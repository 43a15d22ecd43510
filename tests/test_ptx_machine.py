"""The PTX machine itself: what it refuses, what it finds, and memory, warps and control against the manual."""

from __future__ import annotations

import numpy as np
import pytest
from ptx import machine
from ptx.faults import (
    DivergentBarrier,
    Endless,
    Fault,
    Misaligned,
    OutOfBounds,
    Race,
    Uninitialised,
    Unsupported,
)
from ptx.snippet import module, run

# %rd80: the thread's word of the first array; %r81: that of shared memory.
MY_WORD = "mul.wide.u32 %rd80, %r90, 4;\nadd.s64 %rd80, %rd90, %rd80;"
MY_SHARED = "mov.b32 %r81, global_smem;\nshl.b32 %r82, %r90, 2;\nadd.s32 %r81, %r81, %r82;"


def words(count: int = 32) -> np.ndarray:
    return np.full(count, 7, np.uint32)


def results(body: str, threads: int = 32, shared: int = 0) -> list[int]:
    """What each thread leaves in %r99."""
    out = words(threads)
    run(f"{MY_WORD}\n{body}\nst.global.b32 [%rd80], %r99;", out, threads=threads, shared=shared)
    return [int(value) for value in out]


UNKNOWN = [
    "add.cc.s32 %r1, %r90, 1;",
    "add.sat.s32 %r1, %r90, 1;",
    "add.f64 %rd1, %rd90, %rd90;",
    "add.f16 %rs1, %rs1, %rs1;",
    "add.s8 %rs1, %rs1, %rs1;",
    "add.ftz.f32 %r1, %r90, %r90;",
    "add.rz.f32 %r1, %r90, %r90;",
    "max.NaN.f32 %r1, %r90, %r90;",
    "max.relu.u32 %r1, %r90, %r90;",
    "min.f32 %r1, %r90, %r90, %r90, %r90;",
    "add.s32 %r1, %r90;",
    "ex2.approx.f16 %rs1, %rs1;",
    "cvt.rn.satfinite.f16.f32 %rs1, %r90;",
    "cvt.f32.f64 %r1, %rd90;",
    "setp.lt.and.s32 %p1, %r90, 1, %p2;",
    "setp.lt.s32 %p1|%p2, %r90, 1;",
    "prmt.b32.f4e %r1, %r90, %r90, 0;",
    "ld.volatile.global.b32 %r1, [%rd90];",
    "ld.global.nc.b32 %r1, [%rd90];",
    "ld.global.v8.b32 {%r1, %r2, %r3, %r4, %r5, %r6, %r7, %r8}, [%rd90];",
    "ld.global.v2.b32 %r1, [%rd90];",
    "ld.global.L1::evict_last.b32 %r1, [%rd90];",
    "ld.global.L1::evict_first.L2::cache_hint.b32 %r1, [%rd90];",
    "ld.local.b32 %r1, [%rd90];",
    "ld.b32 %r1, [%rd90];",
    "ld.global.b32 %r1, [%r90];",
    "ld.param.b32 %r1, [snippet_param_0];",
    "ld.param.b64 %rd1, [snippet_param_0+4];",
    "ld.param.b64 %rd1, [nothing];",
    "st.global.b32 [%rd90], %rs1;",
    "st.shared::cluster.b32 [%r90], %r90;",
    "cp.async.ca.shared.global [%r90], [%rd90], 4;",
    "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r1, %r2, %r3, %r4}, [%r90];",
    "ldmatrix.sync.aligned.m8n8.x1.trans.shared.b16 {%r1}, [%r90];",
    "atom.global.add.f16x2 %r1, [%rd90], %r90;",
    "atom.global.sys.add.u32 %r1, [%rd90], %r90;",
    "redux.sync.max.NaN.f32 %r1, %r90, -1;",
    "shfl.bfly.b32 %r1, %r90, 1, 31;",
    "vote.sync.uni.pred %p1, %p2, -1;",
    "bar.sync 1;",
    "bar.sync 0, 32;",
    "bar.warp.sync -1;",
    "barrier.cluster.arrive;",
    "membar.gl;",
    "createpolicy.fractional.L2::evict_first.b64 %rd1, 0.5;",
    "call.uni printf;",
    "bra nowhere;",
    "mov.b32 %r1, nothing;",
    "mov.b32 %r1, %clock;",
    "mov.u32 %r1, %tid.y;",
    "mov.b32 %r1, 1.0;",
    "mov.b32 %r1, 4294967296;",
    "mov.f32 %r1, 1;",
    "mov.b64 %rd1, 0f3F800000;",
    "mov.b64 {%r1, %r2, %r3}, %rd90;",
    "mov.b32 %rd1, %r90;",
    "mov.b32 %tid.x, %r90;",
    "mov.b32 %x1, %r90;",
    "@%r90 mov.b32 %r1, 0;",
    "exit;",
    "trap;",
    "{",
    ".reg .f64 %fd<3>;",
    ".local .align 8 .b8 depot[8];",
    "$L__HERE: mov.b32 %r1, 0;",
]


@pytest.mark.parametrize("line", UNKNOWN)
def test_what_is_not_known_is_refused(line: str) -> None:
    """Also where no thread would come to it."""
    with pytest.raises(Unsupported):
        run(f"bra.uni $L__END;\n{line}\n$L__END:", words())


def test_a_refusal_says_where() -> None:
    with pytest.raises(Unsupported, match=r"the instruction add\.sat\.s32 of 3 operands: `add.sat.s32 %r1, %r90, 1`"):
        run("add.sat.s32 %r1, %r90, 1;", words())
    lines = module("mov.b32 %r1, nothing;", 1).splitlines()
    number = next(i for i, line in enumerate(lines, 1) if "nothing" in line)
    with pytest.raises(Unsupported, match=rf"the symbol nothing: .* line {number} of the PTX"):
        run("mov.b32 %r1, nothing;", words())


@pytest.mark.parametrize(
    ("instruction", "fault"),
    [
        ("ld.global.b32 %r1, [%rd80+4];", OutOfBounds),
        ("ld.global.b32 %r1, [%rd80+-4];", OutOfBounds),
        ("st.global.b32 [%rd80+4], %r90;", OutOfBounds),
        ("st.global.b8 [%rd90+128], %r90;", OutOfBounds),
        ("ld.global.v2.b32 {%r1, %r2}, [%rd90+128];", OutOfBounds),
        ("atom.global.add.u32 %r1, [%rd80+4], 1;", OutOfBounds),
        ("ld.global.b32 %r1, [%rd90+2];", Misaligned),
        ("ld.global.v4.b32 {%r1, %r2, %r3, %r4}, [%rd90+8];", Misaligned),
        ("ld.global.v2.b32 {%r1, %r2}, [%rd80];", Misaligned),
        ("st.shared.v2.b32 [%r81], {%r90, %r90};", Misaligned),
        ("st.shared.b32 [%r81+4], %r90;", OutOfBounds),
        ("ld.shared.b32 %r1, [%r81+-4];", OutOfBounds),
        ("ld.shared.b32 %r1, [%r81];", Uninitialised),
        ("add.s32 %r1, %r2, 1;", Uninitialised),
        ("@%p1 add.s32 %r1, %r90, 1;", Uninitialised),
    ],
)
def test_accesses(instruction: str, fault: type[Fault]) -> None:
    with pytest.raises(fault):
        run(f"{MY_WORD}\n{MY_SHARED}\n{instruction}", words(), shared=128)


def test_a_guard_keeps_an_access_inside() -> None:
    body = f"{MY_WORD}\nsetp.lt.u32 %p1, %r90, 31;\n@%p1 ld.global.b32 %r1, [%rd80+4];\n@!%p1 mov.b32 %r1, 0;"
    run(body, words())
    with pytest.raises(OutOfBounds, match=r"1 threads, .* 4 bytes: `@!%p1 ld\.global"):
        run(body.replace("@%p1", "@!%p1"), words())


def test_only_used_bytes_have_to_be_written() -> None:
    body = f"{MY_SHARED}\nsetp.lt.u32 %p1, %r90, 3;\n@%p1 st.shared.b32 [%r81], %r90;\nbar.sync 0;\n%s"
    load = "ld.shared.v4.b32 {%r1, %r2, %r3, %r4}, [global_smem];"
    run(body.replace("%s", f'.pragma "used_bytes_mask 0xfff";\n{load}'), words(), shared=16)
    with pytest.raises(Uninitialised):
        run(body.replace("%s", load), words(), shared=16)


EXCHANGE = f"{MY_SHARED}\nst.shared.b32 [%r81], %r90;\nbar.sync 0;\nxor.b32 %r83, %r82, 4;\nld.shared.b32 %r99, [%r83];"


def test_shared_memory_and_a_barrier() -> None:
    assert results(EXCHANGE, 64, shared=256) == [i ^ 1 for i in range(64)]


@pytest.mark.parametrize("threads", [32, 64])
def test_a_deleted_barrier_is_a_race(threads: int) -> None:
    """Within a warp too: nothing but a barrier orders what its threads do."""
    with pytest.raises(Race, match="a race of thread 0 and another"):
        results(EXCHANGE.replace("bar.sync 0;", ""), threads, shared=4 * threads)


RACES = {
    "load, then store": "ld.global.b32 %r1, [%rd90];\nsetp.eq.s32 %p1, %r90, 5;\n@%p1 st.global.b32 [%rd90], %r90;",
    "store, then load": "setp.eq.s32 %p1, %r90, 5;\n@%p1 st.global.b32 [%rd90], %r90;\nld.global.b32 %r1, [%rd90];",
    "different values": "st.global.b32 [%rd90], %r90;",
    "store, then the same": "setp.eq.s32 %p1, %r90, 5;\n@%p1 st.global.b32 [%rd90], 3;\nst.global.b32 [%rd90], 3;",
    "a byte of a word": "setp.eq.s32 %p1, %r90, 5;\n@%p1 st.global.b8 [%rd90+3], %r90;\nld.global.b32 %r1, [%rd90];",
    "atomic, then load": "red.global.add.u32 [%rd90], 1;\nld.global.b32 %r1, [%rd90];",
    "atomic, then store": "red.global.add.u32 [%rd90], 1;\nst.global.b32 [%rd90], 0;",
}
HARMLESS = {
    "loads": "ld.global.b32 %r1, [%rd90];\nld.global.b32 %r1, [%rd90];",
    "own words": f"{MY_WORD}\nst.global.b32 [%rd80], %r90;\nld.global.b32 %r1, [%rd80];\nst.global.b32 [%rd80], %r1;",
    "own bytes": "cvt.u64.u32 %rd1, %r90;\nadd.s64 %rd1, %rd1, %rd90;\nst.global.b8 [%rd1], %r90;",
    "the same at once": "st.global.b32 [%rd90], 3;",
    "a barrier": "ld.global.b32 %r1, [%rd90];\nbar.sync 0;\nsetp.eq.s32 %p1, %r90, 5;\n@%p1 st.global.b32 [%rd90], 1;",
    "atomics": "red.global.add.u32 [%rd90], 1;\natom.global.max.u32 %r1, [%rd90], 5;",
}


@pytest.mark.parametrize("name", RACES)
def test_races_between_threads(name: str) -> None:
    with pytest.raises(Race, match="a race of thread"):
        run(RACES[name], words(64), threads=64)


@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_no_race(name: str) -> None:
    run(HARMLESS[name], words(64), threads=64)


@pytest.mark.parametrize("kind", ["st.global.b32 [%rd90], %r1;", "ld.global.b32 %r2, [%rd90];"])
def test_races_between_programs(kind: str) -> None:
    """A barrier does not order programs."""
    first = "setp.eq.s32 %p1, %r90, 0;\nmov.u32 %r1, %ctaid.x;\nsetp.eq.u32 %p2, %r1, 0;\nand.pred %p3, %p1, %p2;"
    store = "@%p3 st.global.b32 [%rd90], %r1;\nbar.sync 0;"
    run(f"{first}\n{store}\n@%p3 {kind}", words(), grid=(2,))
    with pytest.raises(Race, match="a race of program 1 and another, 0 or later"):
        run(f"{first}\n{store}\n@%p1 {kind}", words(), grid=(2,))


def test_each_program_has_its_own_shared_memory() -> None:
    body = f"mov.u32 %r1, %ctaid.x;\nsetp.eq.s32 %p1, %r1, 0;\n{MY_SHARED}\n@%p1 st.shared.b32 [%r81], %r90;"
    with pytest.raises(Uninitialised, match="program 1"):
        run(f"{body}\nld.shared.b32 %r2, [%r81];", words(), shared=128, grid=(2,))


def test_divergence() -> None:
    split = "setp.lt.s32 %p1, %r90, 3;\n@%p1 bra $L__ELSE;\nmov.b32 %r99, 1;\n{}bra.uni $L__END;\n"
    split += "$L__ELSE:\nmov.b32 %r99, 2;\n$L__END:\n{}add.s32 %r99, %r99, 10;"
    assert results(split.format("", "bar.sync 0;\n")) == [12] * 3 + [11] * 29
    with pytest.raises(DivergentBarrier, match="29 of 32 threads"):
        results(split.format("bar.sync 0;\n", ""))
    with pytest.raises(DivergentBarrier, match="3 of 32 threads"):
        results("setp.lt.s32 %p1, %r90, 3;\n@%p1 bar.sync 0;\nmov.b32 %r99, 0;")
    with pytest.raises(DivergentBarrier):
        results("setp.lt.s32 %p1, %r90, 3;\n@%p1 ret;\nbar.sync 0;\nmov.b32 %r99, 0;")


def test_loops() -> None:
    """Each thread has its own number of rounds; trips are those of the warp."""
    body = "mov.b32 %r99, 0;\n$L__LOOP:\nadd.s32 %r99, %r99, 1;\nsetp.le.u32 %p1, %r99, %r90;\n@%p1 bra $L__LOOP;"
    assert results(body) == list(range(1, 33))
    assert run(body, words()).trips == (32,)
    assert run(f"{body}\n{body.replace('LOOP', 'AGAIN')}", words(), grid=(3,)).trips == (32, 32)


def test_what_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "LONGEST", 1000)
    for guard in ("", "@%p1 "):
        with pytest.raises(Endless, match="more than 1000 instructions"):
            run(f"setp.lt.s32 %p1, %r90, 3;\n$L__LOOP:\nadd.s32 %r1, %r90, 1;\n{guard}bra $L__LOOP;")


def test_returns_end_threads() -> None:
    out = words()
    run(f"{MY_WORD}\nsetp.lt.s32 %p1, %r90, 3;\n@%p1 ret;\nst.global.b32 [%rd80], %r90;", out)
    assert out.tolist() == [7] * 3 + list(range(3, 32))


def test_counts() -> None:
    counts = run(f"{MY_WORD}\n{EXCHANGE}\nst.global.b32 [%rd80], %r99;", words(64), threads=64, shared=256)
    # mov %tid, ld.param and ret around 2 + 7 + 1 instructions; 128 bytes of each warp are 4 sectors, and a wavefront.
    assert counts.warp_instructions == 2 * 13
    assert (counts.barriers, counts.shared_wavefronts, counts.sectors, counts.trips) == (1, 4, 8, ())


@pytest.mark.parametrize(("stride", "wavefronts"), [(4, 1), (8, 2), (16, 4), (128, 32), (132, 1), (0, 1)])
def test_bank_conflicts(stride: int, wavefronts: int) -> None:
    body = f"mul.lo.s32 %r1, %r90, {stride};\nst.shared.b32 [%r1], 1;"
    assert run(body, words(), shared=8192).shared_wavefronts == wavefronts


@pytest.mark.parametrize(("stride", "sectors"), [(4, 4), (8, 8), (32, 32), (0, 1), (1024, 32)])
def test_sectors(stride: int, sectors: int) -> None:
    body = f"mul.wide.u32 %rd1, %r90, {stride};\nadd.s64 %rd1, %rd1, %rd90;\nld.global.b32 %r1, [%rd1];"
    assert run(body, words(8192)).sectors == sectors
