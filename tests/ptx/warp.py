"""Instructions that lanes of a warp execute together: shuffles, votes, reductions, 8 x 8 matrices."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ptx import access
from ptx import arithmetic as ar
from ptx.access import Run
from ptx.faults import InactiveLane, Misaligned, Unsupported
from ptx.memory import LOAD, STORE
from ptx.parse import Group, Instruction, Kernel, Literal, Operand, Pair, Symbol
from ptx.program import Active, Program, reader, writer
from ptx.types import DTYPES, UNSIGNED, Array, Mask

WORD = UNSIGNED[32]
PREDICATE = DTYPES["pred"]
ALL_LANES = WORD.type(0xFFFFFFFF)

SHUFFLES = {f"shfl.sync.{mode}.b32": mode for mode in ("up", "down", "bfly", "idx")}
VOTES: dict[str, tuple[np.dtype[Any], Callable[[Mask, Mask], Any]]] = {
    "vote.sync.all.pred": (PREDICATE, lambda said, members: (said | ~members).all(axis=1)),
    "vote.sync.any.pred": (PREDICATE, lambda said, members: (said & members).any(axis=1)),
    "vote.sync.ballot.b32": (WORD, lambda said, members: ((said & members) << np.arange(32)).sum(axis=1).astype(WORD)),
}


def _least(values: Array) -> Array:
    return _fold(ar.minimum, values)


def _largest(values: Array) -> Array:
    return _fold(ar.maximum, values)


def _fold(function: Callable[[Array, Array], Array], values: Array) -> Array:
    result = values[:, 0]
    for lane in range(1, 32):
        result = function(result, values[:, lane])
    return result


# The type, what a lane that is no member counts for, and how a warp's values come to one.
REDUCTIONS: dict[str, tuple[str, Any, Callable[[Array], Array]]] = {
    "redux.sync.max.f32": ("f32", np.nan, _largest),
    "redux.sync.min.f32": ("f32", np.nan, _least),
    "redux.sync.and.b32": ("b32", 0xFFFFFFFF, lambda values: np.bitwise_and.reduce(values, axis=1)),
    "redux.sync.or.b32": ("b32", 0, lambda values: np.bitwise_or.reduce(values, axis=1)),
    "redux.sync.xor.b32": ("b32", 0, lambda values: np.bitwise_xor.reduce(values, axis=1)),
}
for _t in ("s32", "u32"):
    _bounds = np.iinfo(DTYPES[_t])
    REDUCTIONS |= {
        f"redux.sync.add.{_t}": (_t, 0, lambda values: values.sum(axis=1, dtype=values.dtype)),
        f"redux.sync.min.{_t}": (_t, _bounds.max, lambda values: values.min(axis=1)),
        f"redux.sync.max.{_t}": (_t, _bounds.min, lambda values: values.max(axis=1)),
    }

# Whether it loads, and how many matrices of 8 x 8 halves it moves.
MATRICES = {
    "ldmatrix.sync.aligned.m8n8.x1.shared.b16": (True, 1),
    "stmatrix.sync.aligned.m8n8.x1.shared.b16": (False, 1),
    "stmatrix.sync.aligned.m8n8.x2.shared.b16": (False, 2),
    "stmatrix.sync.aligned.m8n8.x4.shared.b16": (False, 4),
}


def _members(masks: Any, program: Program, active: Active) -> Mask:
    """[warps, 32]: the lanes that the active ones' membermask names, all of which have to be active themselves."""
    lanes = active.mask.reshape(-1, 32)
    if active.is_all and np.all(masks == ALL_LANES):
        return lanes
    masks = np.broadcast_to(masks, (program.threads,)).reshape(-1, 32, 1)
    named = (masks >> np.arange(32, dtype=WORD) & WORD.type(1)) != 0
    wrong = lanes & (named != lanes[:, None, :]).any(axis=2)
    if wrong.any():
        thread = int(wrong.reshape(-1).nonzero()[0][0])
        raise InactiveLane(f"thread {thread} names the lanes {int(masks.reshape(-1)[thread]):#x}; others are active")
    return lanes


def bind_shuffle(instruction: Instruction, kernel: Kernel) -> Run:
    mode = SHUFFLES[instruction.opcode]
    result, *sources = instruction.operands
    value, predicate = (result.value, result.predicate) if isinstance(result, Pair) else (result, Symbol("_"))
    write, write_predicate = writer(value, WORD, kernel), writer(predicate, PREDICATE, kernel)
    read, read_by, read_clamp, read_members = (reader(source, WORD, kernel) for source in sources)

    def shuffle(program: Program, active: Active) -> None:
        _members(read_members(program), program, active)
        values, lane = np.broadcast_to(read(program), (program.threads,)), program.lane
        by, clamp = (np.asarray(each(program)).astype(np.int64) for each in (read_by, read_clamp))
        segment, clamp, by = clamp >> 8 & 31, clamp & 31, by & 31
        first, last = lane & segment, lane & segment | clamp & ~segment
        if mode == "up":
            source = lane - by
            inside = source >= last
        else:
            source = {"down": lane + by, "bfly": lane ^ by, "idx": first | by & ~segment}[mode]
            inside = source <= last
        source = np.where(inside, source, lane) + 32 * program.warp
        if not active.mask[source[active.threads]].all():
            thread = active.threads[~active.mask[source[active.threads]]][0]
            raise InactiveLane(f"thread {thread} reads from thread {source[thread]}, which is not active")
        write(program, values[source], active)
        write_predicate(program, inside, active)

    return shuffle


def bind_vote(instruction: Instruction, kernel: Kernel) -> Run:
    dtype, count = VOTES[instruction.opcode]
    result, said, mask = instruction.operands
    write, read, read_members = (
        writer(result, dtype, kernel),
        reader(said, PREDICATE, kernel),
        reader(mask, WORD, kernel),
    )

    def vote(program: Program, active: Active) -> None:
        members = _members(read_members(program), program, active)
        said = np.broadcast_to(read(program), (program.threads,)).reshape(-1, 32)
        write(program, np.repeat(count(said, members), 32), active)

    return vote


def bind_reduction(instruction: Instruction, kernel: Kernel) -> Run:
    type_, neutral, reduce = REDUCTIONS[instruction.opcode]
    dtype = DTYPES[type_]
    result, source, mask = instruction.operands
    write, read = writer(result, dtype, kernel), reader(source, dtype, kernel)
    read_members = reader(mask, WORD, kernel)

    def reduction(program: Program, active: Active) -> None:
        members = _members(read_members(program), program, active)
        values = np.broadcast_to(read(program), (program.threads,)).reshape(-1, 32)
        values = np.where(members, values, dtype.type(neutral))
        write(program, np.repeat(reduce(values), 32), active)

    return reduction


def bind_matrix(instruction: Instruction, kernel: Kernel) -> Run:
    """Lanes 0 to 7 give the addresses of 8 rows of 16 bytes; lane i has word i % 4 of row i / 4.

    So for the first matrix; the next eight lanes give those of the next matrix, which is in the next register.
    """
    loads, count = MATRICES[instruction.opcode]
    registers, where = instruction.operands if loads else reversed(instruction.operands)
    moves = [_bind_one_matrix(loads, i, part, where, instruction, kernel) for i, part in _parts(registers, count)]

    def move(program: Program, active: Active) -> None:
        for run in moves:
            run(program, active)

    return move


def _bind_one_matrix(
    loads: bool, index: int, part: Operand, where: Operand, instruction: Instruction, kernel: Kernel
) -> Run:
    shared, locations = access.Access("shared", 1, "b32"), access.locate(where, "shared", kernel)
    write, read = (writer(part, WORD, kernel), None) if loads else (None, reader(part, WORD, kernel))

    def move(program: Program, active: Active) -> None:
        if not active.mask.reshape(-1, 32)[active.mask.reshape(-1, 32).any(axis=1)].all():
            raise InactiveLane("a matrix needs all lanes of a warp")
        rows = locations(program)[program.warp * 32 + index * 8 + program.lane // 4]
        if (rows[active.threads] % 16).any():
            raise Misaligned("a row of a matrix that is not a multiple of 16 bytes from the start")
        addresses = (rows + program.lane % 4 * 4)[active.threads]
        memory = access.prepare(program, shared, addresses, active, LOAD if loads else STORE, 4)
        if write is not None:
            memory.check_written(addresses, 4, instruction.used_bytes)
            memory.note(LOAD, addresses, 4, active.threads, program.number)
            values = np.zeros(program.threads, WORD)
            values[active.threads] = memory.load(WORD, addresses)
            write(program, values, active)
        elif read is not None:
            values = np.broadcast_to(read(program), (program.threads,))[active.threads]
            access.store_together(program, memory, addresses, [values], active)

    return move


def _parts(operand: Operand, count: int) -> Iterator[tuple[int, Operand]]:
    if not isinstance(operand, Group) or len(operand.parts) != count or isinstance(operand.parts[0], Literal):
        raise Unsupported(f"the matrices {operand}")
    yield from enumerate(operand.parts)
