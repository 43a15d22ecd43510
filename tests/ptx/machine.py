"""Instructions made ready to run, and the loop that runs a program's threads in lock step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptx import access, warp
from ptx.access import Run
from ptx.elementwise import TABLE, Elementwise
from ptx.faults import DivergentBarrier, Endless, Fault, Uninitialised, Unsupported
from ptx.parse import Group, Instruction, Kernel, Literal, Symbol
from ptx.program import Active, Program, reader, writer
from ptx.types import DTYPES, UNSIGNED, Array

MOVES = {f"mov.{t}": t for t in ("b16", "u16", "s16", "b32", "u32", "s32", "f32", "b64", "u64", "s64", "pred")}
LONGEST = 2_000_000  # instructions of a program


@dataclass(frozen=True)
class Step:
    """An instruction that is ready: it branches, it ends threads, or it runs."""

    instruction: Instruction
    guard: str | None
    negated: bool
    target: int | None  # of a branch
    run: Run | None  # None: a branch, or the end


def prepare(kernel: Kernel) -> list[Step]:
    """All instructions of a kernel; Unsupported if any of them is not known."""
    steps = []
    for instruction in kernel.instructions:
        try:
            steps.append(_prepare(instruction, kernel))
        except Fault as fault:
            raise _explained(fault, instruction, "") from None
        except ValueError as error:  # another number of operands than the instruction has
            raise _explained(Unsupported(str(error)), instruction, "") from None
    return steps


def _explained(fault: Fault, instruction: Instruction, where: str) -> Fault:
    """The fault, saying where it was."""
    place = f"line {instruction.line} of the PTX, from {instruction.source}"
    return type(fault)(f"{fault}: `{instruction.text}`, {place}{where}")


def _prepare(instruction: Instruction, kernel: Kernel) -> Step:
    guard, negated = None, False
    if instruction.guard is not None:
        reader(instruction.guard.register, DTYPES["pred"], kernel)
        guard, negated = instruction.guard.register.name, instruction.guard.negated
    if instruction.opcode in ("bra", "bra.uni"):
        (label,) = instruction.operands
        if not isinstance(label, Symbol) or label.name not in kernel.labels:
            raise Unsupported(f"the label {label}")
        return Step(instruction, guard, negated, kernel.labels[label.name], None)
    if instruction.opcode == "ret":
        return Step(instruction, guard, negated, None, None)
    return Step(instruction, guard, negated, None, _bind(instruction, kernel))


def _bind(instruction: Instruction, kernel: Kernel) -> Run:
    opcode = instruction.opcode
    if known := TABLE.get((opcode, len(instruction.operands) - 1)):
        return _bind_elementwise(known, instruction, kernel)
    if opcode in MOVES:
        return _bind_move(instruction, kernel)
    for table, bind in _BINDERS:
        if opcode in table:
            return bind(instruction, kernel)
    raise Unsupported(f"the instruction {opcode} of {len(instruction.operands)} operands")


def _bind_elementwise(known: Elementwise, instruction: Instruction, kernel: Kernel) -> Run:
    result, *sources = instruction.operands
    write, function = writer(result, DTYPES[known.result], kernel), known.function
    reads = [reader(source, DTYPES[t], kernel) for source, t in zip(sources, known.operands, strict=True)]
    if len(reads) == 2:  # most of them, and worth not building a list
        a, b = reads
        return lambda program, active: write(program, function(a(program), b(program)), active)
    return lambda program, active: write(program, function(*[read(program) for read in reads]), active)


def _bind_move(instruction: Instruction, kernel: Kernel) -> Run:
    dtype = DTYPES[MOVES[instruction.opcode]]
    result, source = instruction.operands
    if not isinstance(result, Group) and not isinstance(source, Group):
        write, read = writer(result, dtype, kernel), reader(source, dtype, kernel)
        return lambda program, active: write(program, read(program), active)
    parts = source.parts if isinstance(source, Group) else result.parts if isinstance(result, Group) else ()
    half = UNSIGNED.get(dtype.itemsize * 4)
    if instruction.opcode not in ("mov.b32", "mov.b64") or len(parts) != 2 or half is None:
        raise Unsupported("a move of other than two halves")
    if isinstance(source, Group):
        write = writer(result, dtype, kernel)
        # Vectorised code has lanes that nobody uses, of registers that nobody wrote.
        low, high = (reader(part, half, kernel, may_be_garbage=True) for part in parts)
        return lambda program, active: write(program, _join(program, low(program), high(program), dtype), active)
    read, writes = reader(source, dtype, kernel), [writer(part, half, kernel) for part in parts]

    def split(program: Program, active: Active) -> None:
        halves = np.broadcast_to(np.asarray(read(program)), (program.threads,))
        for i, write in enumerate(writes):
            write(program, (halves >> dtype.type(i * half.itemsize * 8)).astype(half), active)

    return split


def _join(program: Program, low: Any, high: Any, dtype: np.dtype[Any]) -> Array:
    low, high = (np.broadcast_to(np.asarray(part), (program.threads,)).astype(dtype) for part in (low, high))
    return low | high << dtype.type(dtype.itemsize * 4)


def _bind_policy(instruction: Instruction, kernel: Kernel) -> Run:
    """A cache policy for all of what is loaded: a hint, of which the bits mean nothing here."""
    result, fraction = instruction.operands
    if fraction != Literal("1.0"):
        raise Unsupported(f"the fraction {fraction}")
    write = writer(result, UNSIGNED[64], kernel)
    return lambda program, active: write(program, np.uint64(0), active)


def _bind_barrier(instruction: Instruction, kernel: Kernel) -> Run:
    """The barrier of all threads of a program: what they did to memory is done for all."""
    if instruction.operands != (Literal("0"),):
        raise Unsupported(f"the barrier {instruction.operands}")

    def wait(program: Program, active: Active) -> None:
        if not active.mask.all():
            raise DivergentBarrier(f"{active.mask.sum()} of {program.threads} threads are at the barrier")
        program.barriers += 1
        for memory in (program.shared, program.memory):
            for users, are_programs in memory.users:
                if not are_programs:
                    users.new_epoch()

    return wait


_BINDERS: list[tuple[Any, Callable[[Instruction, Kernel], Run]]] = [
    (access.PARAMETERS, access.bind_parameter),
    (access.LOADS, access.bind_load),
    (access.STORES, access.bind_store),
    (access.ATOMICS, access.bind_atomic),
    (warp.SHUFFLES, warp.bind_shuffle),
    (warp.VOTES, warp.bind_vote),
    (warp.REDUCTIONS, warp.bind_reduction),
    (warp.MATRICES, warp.bind_matrix),
    ({"createpolicy.fractional.L2::evict_first.b64"}, _bind_policy),
    ({"bar.sync"}, _bind_barrier),
]


class Trips:
    """How often a warp ran each loop, one after another: a loop ends where its branch back is not taken."""

    def __init__(self) -> None:
        self.counts: list[int] = []
        self.open: dict[int, int] = {}

    def branch(self, at: int, target: int, is_taken: bool) -> None:
        if target > at:
            return
        if at not in self.open:
            self.open[at] = len(self.counts)
            self.counts.append(0)
        self.counts[self.open[at]] += 1
        if not is_taken:
            del self.open[at]


def run(program: Program, steps: list[Step], trips: Trips | None = None) -> int:
    """Run all threads to their end; how many instructions the warps took. Warp 0 notes its `trips`."""
    next_of = np.zeros(program.threads, np.int64)
    executed = 0
    with np.errstate(all="ignore"):
        while (at := int(next_of.min())) < len(steps):
            group = next_of == at
            waiting = next_of[~group]
            stop = int(waiting.min()) if waiting.size else len(steps)
            active = Active(group, not waiting.size)
            executed += _advance(program, steps, at, stop, active, next_of, trips) * active.num_warps
            if executed > LONGEST:
                raise Endless(f"more than {LONGEST} instructions of warps")
    return executed


def _advance(
    program: Program, steps: list[Step], at: int, stop: int, active: Active, next_of: Array, trips: Trips | None
) -> int:
    """Run threads that are together until they part or come to `stop`, where others wait; how many instructions."""
    count = 0
    while at < stop and count <= LONGEST:
        step = steps[at]
        count += 1
        now = active if step.guard is None else _guarded(program, step, active)
        if program.guards is not None and step.guard is not None:
            program.guards.note(step.instruction.line, active.mask, now.mask)
        if step.run is not None:
            if now is active or now.mask.any():
                try:
                    step.run(program, now)
                except Fault as fault:
                    raise _explained(fault, step.instruction, f", program {program.number}") from None
            at += 1
            continue
        target = len(steps) if step.target is None else step.target
        if trips is not None and step.target is not None and active.mask[:32].any():
            trips.branch(at, target, bool(now.mask[:32].any()))
        if now is active or (now.mask == active.mask).all():
            at = target
        elif not now.mask.any():
            at += 1
        else:
            next_of[active.mask] = at + 1
            next_of[now.mask] = target
            return count
    next_of[active.mask] = at
    return count


def _guarded(program: Program, step: Step, active: Active) -> Active:
    try:
        said = program.registers[step.guard or ""]
    except KeyError:
        raise Uninitialised(f"the guard of `{step.instruction.text}` is read before it is written") from None
    mask = active.mask & (~said if step.negated else said)
    return Active(mask, active.is_all and bool(mask.all()))
