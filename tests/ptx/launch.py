"""Run a launch: `execute` on numpy arrays; `run` on memory that was made ready."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptx import access, machine
from ptx.faults import Unsupported
from ptx.memory import GlobalMemory, Users, shared_memory
from ptx.parse import Kernel, parse
from ptx.program import Guards, Outcomes, Program
from ptx.types import UNSIGNED

# Pointers to scratch memory that Triton adds to every kernel, and gives nothing to point to where it is not used.
SCRATCH = 2


@dataclass(frozen=True)
class Counts:
    """What a launch took, of all its programs."""

    warp_instructions: int  # issued, with guards that hold for none of the warp's threads too
    barriers: int  # once for all threads of a program
    shared_wavefronts: int
    sectors: int  # of 32 bytes, of each warp's accesses to global memory
    trips: tuple[int, ...]  # of program 0, warp 0: how often each loop ran, in the order of their first branches back
    outcomes: tuple[Outcomes, ...]  # of program 0, of each warp


def execute(compiled: Any, grid: Sequence[int], args: Sequence[Any], *, seed: int = 0) -> Counts:
    """Run a compiled kernel (what `triton.compile` returns) on numpy arrays, which are changed in place.

    args: what the kernel takes, in its order, without constexprs: contiguous arrays for pointers (bfloat16: uint16),
        ints and floats. An array's elements are all that may be accessed through any pointer.
    seed: of the order of atomics.
    Raises a `Fault`.
    """
    arrays = [a for a in args if isinstance(a, np.ndarray)]
    if not all(a.flags.c_contiguous for a in arrays):
        raise ValueError("expected contiguous arrays")
    memory = GlobalMemory([(a.reshape(-1).view(np.uint8), np.ones(a.nbytes, bool)) for a in arrays])
    bases = iter(memory.bases)
    values = [next(bases) if isinstance(a, np.ndarray) else a for a in args]
    counts = run(compiled.asm["ptx"], compiled.metadata.shared, grid, values, memory, seed)
    memory.copy_back()
    return counts


@functools.lru_cache(maxsize=256)
def _prepared(ptx: str) -> tuple[Kernel, list[machine.Step], dict[str, int]]:
    """The kernel, its steps, and of each space how many bytes races are looked for in."""
    kernel = parse(ptx)
    return kernel, machine.prepare(kernel), {space: access.narrowest(kernel, space) for space in ("global", "shared")}


def run(
    ptx: str,
    shared_bytes: int,
    grid: Sequence[int],
    values: Sequence[Any],
    memory: GlobalMemory,
    seed: int,
    most_programs: int | None = None,
) -> Counts:
    """Run a launch. values: those of the parameters, of pointers the addresses in `memory`.

    most_programs: how many of the programs are executed, from the first on; None: all.
    """
    kernel, steps, cells = _prepared(ptx)
    arguments = _arguments(kernel, values)
    size: tuple[int, int, int] = (*grid, 1, 1)[:3]  # type: ignore[assignment]
    programs = [(x, y, z) for z in range(size[2]) for y in range(size[1]) for x in range(size[0])]
    threads = Users(len(memory.data), cells["global"], kernel.threads, "thread")
    memory.users = [(threads, False)]
    if len(programs) > 1:
        memory.users.append((Users(len(memory.data), cells["global"], len(programs), "program"), True))

    rng = np.random.default_rng(seed)
    instructions = barriers = wavefronts = sectors = 0
    trips, guards = machine.Trips(), Guards(kernel.threads)
    for index in programs[:most_programs]:
        threads.new_epoch()
        shared = shared_memory(shared_bytes if kernel.arrays else 0)
        shared.users = [(Users(len(shared.data), cells["shared"], kernel.threads, "thread"), False)]
        program = Program(kernel, index, size, arguments, shared, memory, rng)
        program.guards = guards if program.number == 0 else None
        instructions += machine.run(program, steps, trips if program.number == 0 else None)
        barriers, wavefronts = barriers + program.barriers, wavefronts + program.wavefronts
        sectors += program.sectors
    return Counts(instructions, barriers, wavefronts, sectors, tuple(trips.counts), tuple(guards.outcomes))


def _arguments(kernel: Kernel, values: Sequence[Any]) -> dict[str, Any]:
    """The bits of each parameter."""
    missing = len(kernel.parameters) - len(values)
    if missing not in (0, SCRATCH):
        raise Unsupported(f"{len(values)} arguments for {len(kernel.parameters)} parameters")
    bits = {}
    for (name, type_), value in zip(kernel.parameters.items(), [*values, *[0] * missing], strict=True):
        if type_ == "f32":
            bits[name] = np.float32(value).view(np.uint32)
        else:
            width = int(type_[1:])
            if not -(1 << (width - 1)) <= int(value) < 1 << width:
                raise ValueError(f"{name}: expected {width} bits, got {value}")
            bits[name] = UNSIGNED[width].type(int(value) & ((1 << width) - 1))
    return bits
