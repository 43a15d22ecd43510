"""The replay of machine code, on small listings: where it goes, and cycles that are counted by hand."""

from __future__ import annotations

import numpy as np
import pytest
from ptx import cycles, sass
from ptx.program import Guards, Outcomes
from ptx.sass import ReplayError

NONE = 7  # no scoreboard


def machine(
    text: str, line: int = 1, stall: int = 1, sets: int = NONE, reads: int = NONE, waits: tuple[int, ...] = ()
) -> str:
    """An instruction as nvdisasm lists it; a label is itself."""
    if text.endswith(":"):
        return text
    mask = sum(1 << board for board in waits)
    upper = stall << 41 | sets << 46 | reads << 49 | mask << 52
    return f"""\
\t//## File ".nv_debug_ptx_txt", line {line}
        /*0010*/              {text} ;   /* 0x0000000000000000 */
                                         /* {upper:#018x} */"""


def listing(*instructions: str) -> str:
    return "\n".join(("\t.target\tsm_90a", *instructions))


def walk(code: str, ptx: str, outcomes: Outcomes) -> list[sass.Instruction]:
    return sass.Walker(sass.parse(code), ptx).walk(outcomes)


def issued(code: str, ptx: str, outcomes: Outcomes) -> list[str]:
    return [instruction.operation for instruction in walk(code, ptx, outcomes)]


EXIT = machine("EXIT", line=99, stall=5)  # of none of the lines below


def test_fields_of_an_instruction():
    guarded = machine("@!P0 LDG.E.128 R4, desc[UR4][R2.64]", line=31, stall=9, sets=2, reads=5, waits=(0, 3))
    code = sass.parse(listing("select_kernel:", ".text.select_kernel:", guarded, EXIT))
    assert code == [
        sass.Instruction("LDG", 31, True, 9, 2, 5, (0, 3), None),
        sass.Instruction("EXIT", 99, False, 5, None, None, (), 2),
    ]


@pytest.mark.parametrize(
    ("instruction", "to", "is_conditional"),
    [
        ("BRA `(.L_x_0)", 1, False),
        ("@P1 BRA `(.L_x_0)", 1, True),
        ("@!UP1 BRA `(.L_x_0)", 1, True),
        ("BRA !P2, `(.L_x_0)", 1, True),
        ("@P4 BRA P5, `(.L_x_0)", 1, True),
        ("@P0 EXIT", 2, True),
    ],
)
def test_targets_of_branches(instruction, to, is_conditional):
    code = sass.parse(listing(machine(instruction), ".L_x_0:", EXIT))
    assert (code[0].target, code[0].is_conditional) == (to, is_conditional)


PTX_IF = """\
setp.ne.b32 %p1, %r1, 0;
@%p1 bra $L_else;
add.s32 %r2, %r2, 1;
add.s32 %r2, %r2, 2;
$L_else:
st.global.b32 [%rd1], %r2;
ret;
"""
SASS_IF = (
    machine("ISETP.NE.AND P0, PT, R1, RZ, PT", line=1, stall=13),
    machine("@P0 BRA `(.L_x_0)", line=2, stall=5),
    machine("IADD3 R2, R2, 0x1, RZ", line=3, stall=4),
    machine("IADD3 R2, R2, 0x2, RZ", line=4, stall=4),
    ".L_x_0:",
    machine("STG.E desc[UR4][R4.64], R2", line=6, stall=1),
    EXIT,
)


def test_code_behind_a_branch_costs_only_where_it_runs():
    code = listing(*SASS_IF)
    past = walk(code, PTX_IF, {2: [(32, 32)]})
    through = walk(code, PTX_IF, {2: [(32, 0)]})
    assert cycles.alone(past) == 13 + 5 + 1 + 5
    assert cycles.alone(through) == 13 + 5 + 4 + 4 + 1 + 5


def test_a_branch_that_the_compiler_turned_over():
    """It jumps to the code of the `if` behind the end, where the PTX jumps past it."""
    code = listing(
        machine("ISETP.NE.AND P0, PT, R1, RZ, PT", line=1),
        machine("@!P0 BRA `(.L_x_1)", line=2),
        ".L_x_0:",
        machine("STG.E desc[UR4][R4.64], R2", line=6),
        EXIT,
        ".L_x_1:",
        machine("IADD3 R2, R2, 0x1, RZ", line=3),
        machine("IADD3 R2, R2, 0x2, RZ", line=4),
        machine("BRA `(.L_x_0)", line=4),
    )
    assert issued(code, PTX_IF, {2: [(32, 32)]}) == ["ISETP", "BRA", "STG", "EXIT"]
    assert issued(code, PTX_IF, {2: [(32, 0)]}) == ["ISETP", "BRA", "IADD3", "IADD3", "BRA", "STG", "EXIT"]


def test_lanes_that_part_around_code_all_come_behind_it():
    operations = issued(listing(*SASS_IF), PTX_IF, {2: [(32, 5)]})
    assert operations == ["ISETP", "BRA", "IADD3", "IADD3", "STG", "EXIT"]


PTX_LOOP = """\
$L_again:
add.s32 %r1, %r1, 1;
setp.lt.s32 %p1, %r1, %r2;
@%p1 bra $L_again;
st.global.b32 [%rd1], %r1;
ret;
"""
SASS_LOOP = (
    ".L_x_0:",
    machine("IADD3 R1, R1, 0x1, RZ", line=2, stall=4),
    machine("@P0 BRA `(.L_x_0)", line=4, stall=6),
    machine("STG.E desc[UR4][R4.64], R1", line=5, stall=2),
    EXIT,
)


@pytest.mark.parametrize("trips", [1, 2, 7])
def test_a_loop_runs_as_often_as_in_the_execution(trips):
    walked = walk(listing(*SASS_LOOP), PTX_LOOP, {4: [(32, 32)] * (trips - 1) + [(32, 0)]})
    assert cycles.alone(walked) == trips * (4 + 6) + 2 + 5


PTX_LOAD = """\
mov.u32 %r1, 0;
@%p1 ld.global.b32 { %r1 }, [ %rd1 + 0 ];
add.s32 %r1, %r1, 1;
ret;
"""


@pytest.mark.parametrize(("held", "expected"), [(0, 2 + 1 + 4 + 5), (1, 2 + 600 + 4 + 5)])
def test_a_guarded_load_is_waited_for_if_any_lane_loads(held, expected):
    code = listing(
        machine("MOV R1, RZ", line=1, stall=2),
        machine("@P0 LDG.E R1, desc[UR4][R2.64]", line=2, stall=1, sets=0),
        machine("IADD3 R1, R1, 0x1, RZ", line=3, stall=4, waits=(0,)),
        EXIT,
    )
    assert cycles.alone(walk(code, PTX_LOAD, {2: [(32, held)]})) == expected


@pytest.mark.parametrize(("held", "expected"), [(0, ["BRA", "IADD3", "EXIT"]), (3, ["BRA", "LDG", "IADD3", "EXIT"])])
def test_a_guarded_load_that_became_a_branch(held, expected):
    code = listing(
        machine("@!P0 BRA `(.L_x_0)", line=2),
        machine("LDG.E R1, desc[UR4][R2.64]", line=2, sets=0),
        ".L_x_0:",
        machine("IADD3 R1, R1, 0x1, RZ", line=3, waits=(0,)),
        EXIT,
    )
    assert issued(code, PTX_LOAD, {2: [(32, held)]}) == expected


def test_a_load_of_a_side_that_did_not_run_is_not_waited_for():
    """ptxas makes a guard of a branch: the line has none in the PTX."""
    code = listing(
        machine("@!P0 LDG.E R2, desc[UR4][R2.64]", line=3, stall=1, sets=0),
        machine("STG.E desc[UR4][R4.64], R2", line=6, stall=3, waits=(0,)),
        EXIT,
    )
    assert cycles.alone(walk(code, PTX_IF, {2: [(32, 32)]})) == 1 + 3 + 5
    assert cycles.alone(walk(code, PTX_IF, {2: [(32, 0)]})) == 600 + 3 + 5


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (EXIT, "expected code of sm"),
        (listing(EXIT).replace("sm_90a", "sm_75"), "expected code of sm"),
        (listing(machine("CALL.REL.NOINC `(.L_x_0)")), r"unknown operation: CALL\.REL.NOINC"),
        (listing(machine("BRX R2 -0x10")), "unknown operation: BRX"),
        (listing(machine("BRA.U !UP2, `(.L_x_0)")), "unknown form of branch: BRA.U"),
        (listing(machine("BRA.DIV ~URZ, `(.L_x_0)")), "unknown form of branch: BRA.DIV"),
        (listing(machine("BRA `(.L_x_7)")), r"unknown label \.L_x_7"),
        (listing(machine("EXIT", sets=6)), "unknown control word"),
        (listing(EXIT.rpartition("\n")[0]), "expected the upper half"),
        (listing("        /*0010*/  {FADD R1, R1, R1}   /* 0x0000000000000000 */"), "unknown form of instruction"),
    ],
)
def test_listings_that_are_not_understood(code, message):
    with pytest.raises(ReplayError, match=message):
        sass.parse(code)


TWICE = (*SASS_IF[:2], machine("IADD3 R2, R2, 0x1, RZ", line=3), *SASS_IF[1:])
FROM_NO_GUARD = (machine("@P0 BRA `(.L_x_0)", line=3), *SASS_IF[2:])
ALIKE = (SASS_IF[1], machine("NOP", line=1), *SASS_IF[4:])
MIXED = (*SASS_IF[:4], SASS_LOOP[3], EXIT, ".L_x_0:", machine("FADD R1, R1, R1", line=3), *SASS_IF[5:])


@pytest.mark.parametrize(
    ("code", "outcomes", "message"),
    [
        (SASS_IF, {}, "BRA comes once more than line 2"),
        (SASS_IF, {2: [(32, 0)] * 2}, "line 2 of the PTX came 1 times more"),
        (TWICE, {2: [(32, 0)] * 2}, "2 branches come from line 2"),
        (FROM_NO_GUARD, {3: [(32, 0)]}, "line 3 of the PTX, which has no guard: add.s32"),
        (ALIKE, {2: [(32, 0)]}, "look alike: 0 instructions for the one reading, 0 for the other"),
        (MIXED, {2: [(32, 0)]}, "look alike: 2 instructions for the one reading, 1 for the other"),
    ],
)
def test_what_does_not_fit_the_execution(code, outcomes, message):
    with pytest.raises(ReplayError, match=message):
        walk(listing(*code), PTX_IF, outcomes)


def test_lanes_that_part_between_two_sides():
    with pytest.raises(ReplayError, match="the lanes of a warp part at line 4"):
        walk(listing(*SASS_LOOP), PTX_LOOP, {4: [(32, 5), (5, 0)]})


def parsed(*instructions: str) -> list[sass.Instruction]:
    return sass.parse(listing(*instructions, EXIT))


LOAD = machine("LDS R1, [R2]", stall=2, sets=1, reads=0)
ADD = machine("FADD R1, R1, R1", stall=4)


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ((ADD, ADD), 4 + 4 + 5),
        ((machine("NOP", stall=0),), 1 + 5),  # an instruction takes a cycle at least
        ((LOAD, machine("FADD R1, R1, R1", stall=4, waits=(1,))), 30 + 4 + 5),
        ((LOAD, machine("MOV R2, R3", stall=4, waits=(0,))), 12 + 4 + 5),
        # The second load holds the board: issued at 2, there at 32.
        ((LOAD, LOAD, machine("FADD R1, R1, R1", stall=4, waits=(1,))), 32 + 4 + 5),
        ((machine("BAR.SYNC.DEFER_BLOCKING 0x0", stall=6),), 6 + 20 + 5),
    ],
)
def test_cycles_alone(instructions, expected):
    assert cycles.alone(parsed(*instructions)) == expected


@pytest.mark.parametrize(("warps", "expected"), [(1, 13), (4, 13), (5, 14), (8, 14), (9, 15)])
def test_warps_of_one_scheduler_take_turns(warps, expected):
    """Of 4 + 4 + 5 cycles a warp issues in three: others of its scheduler start a cycle later each."""
    assert cycles.together([parsed(ADD, ADD)] * warps) == expected


def test_warps_share_a_pipe():
    """Four reductions at 0 take the pipe two cycles each: the last enters at 6."""
    reduce = machine("REDUX.SUM.S32 UR4, R2", stall=1, sets=0)
    program = [parsed(reduce, machine("FADD R1, R1, R1", stall=4, waits=(0,)))] * 4
    assert cycles.together(program) == 6 + 24 + 4 + 5
    assert cycles.together(program[:1]) == cycles.alone(program[0]) == 24 + 4 + 5


BARRIER = machine("BAR.SYNC.DEFER_BLOCKING 0x0", stall=6)


def test_warps_meet_at_barriers():
    """The one comes at 4, the other at 12; both leave 20 cycles after the latter's stall."""
    assert cycles.together([parsed(ADD, BARRIER), parsed(ADD, ADD, ADD, BARRIER)]) == 12 + 6 + 20 + 5


def test_a_barrier_that_not_all_reach():
    with pytest.raises(ReplayError, match="1 of 2 warps wait at a barrier"):
        cycles.together([parsed(BARRIER), parsed(ADD)])


def test_an_operation_of_unknown_latency():
    with pytest.raises(ReplayError, match="FADD has to be waited for"):
        cycles.alone(parsed(machine("FADD R1, R1, R1", sets=0)))


def test_outcomes_are_of_the_warps_that_came():
    guards = Guards(threads=64)
    thread = np.arange(64)
    guards.note(7, thread < 64, thread < 3)
    guards.note(7, thread < 32, thread < 32)
    guards.note(9, thread >= 60, thread < 0)
    assert guards.outcomes == [{7: [(32, 3), (32, 32)]}, {7: [(32, 0)], 9: [(4, 0)]}]
