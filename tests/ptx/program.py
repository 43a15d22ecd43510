"""The state of the program that runs, and how instructions get at its registers."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from ptx.faults import Uninitialised, Unsupported
from ptx.memory import GARBAGE, GlobalMemory, Memory
from ptx.parse import Kernel, Literal, Operand, Register, Symbol
from ptx.types import DTYPES, UNSIGNED, Array, Mask, bits_of, constant


class Active:
    """The threads that execute an instruction."""

    def __init__(self, mask: Mask, is_all: bool) -> None:
        self.mask, self.is_all = mask, is_all

    @functools.cached_property
    def threads(self) -> Array:
        return self.mask.nonzero()[0]

    @functools.cached_property
    def num_warps(self) -> int:
        return int(self.mask.reshape(-1, 32).any(axis=1).sum())


# What the lanes of a warp said to a guarded instruction, each time that they came to it: how many came, and for how
# many of them the guard held; by the instruction's line in the PTX.
Outcomes = dict[int, list[tuple[int, int]]]


class Guards:
    """How the guarded instructions of a program went, branches among them, for each warp."""

    def __init__(self, threads: int) -> None:
        self.outcomes: list[Outcomes] = [{} for _ in range(threads // 32)]

    def note(self, line: int, came: Mask, held: Mask) -> None:
        lanes = zip(*(mask.reshape(-1, 32).sum(axis=1).tolist() for mask in (came, held)), strict=True)
        for outcomes, outcome in zip(self.outcomes, lanes, strict=True):
            if outcome[0]:
                outcomes.setdefault(line, []).append(outcome)


class Program:
    """One program of a launch: registers of all its threads, and its memory."""

    def __init__(
        self,
        kernel: Kernel,
        index: tuple[int, int, int],
        grid: tuple[int, int, int],
        arguments: dict[str, Any],
        shared: Memory,
        memory: GlobalMemory,
        rng: np.random.Generator,
    ) -> None:
        self.threads, self.arguments, self.shared, self.memory, self.rng = (
            kernel.threads,
            arguments,
            shared,
            memory,
            rng,
        )
        self.number = index[0] + grid[0] * (index[1] + grid[1] * index[2])
        thread = np.arange(kernel.threads, dtype=np.uint32)
        self.lane = (thread & 31).astype(np.int64)
        self.warp = (thread >> 5).astype(np.int64)
        self.registers: dict[str, Array] = {"%tid.x": thread, "%laneid": thread & 31}
        for axis, at, of, of_threads in zip("xyz", index, grid, (kernel.threads, 1, 1), strict=True):
            for name, value in {"ctaid": at, "nctaid": of, "ntid": of_threads}.items():
                self.registers[f"%{name}.{axis}"] = np.full(kernel.threads, value, np.uint32)
        self.barriers = self.wavefronts = self.sectors = 0
        self.guards: Guards | None = None  # of a program whose way is asked for


SPECIAL = {"%tid.x", "%laneid"} | {f"%{name}.{axis}" for name in ("ctaid", "nctaid", "ntid") for axis in "xyz"}

Reader = Callable[[Program], Any]
Writer = Callable[[Program, Any, Active], None]


def width_of(register: Register, kernel: Kernel) -> int:
    """Its bits; 1 for a predicate."""
    if register.name in SPECIAL:
        return 32
    prefix = register.name[1:].rstrip("0123456789")
    if prefix not in kernel.registers:
        raise Unsupported(f"the register {register.name}")
    kind = kernel.registers[prefix]
    return 1 if kind == "pred" else DTYPES[kind].itemsize * 8


def _check_width(register: Register, dtype: np.dtype[Any], kernel: Kernel) -> None:
    width = 1 if dtype == np.bool_ else dtype.itemsize * 8
    if width_of(register, kernel) != width:
        raise Unsupported(f"{register.name} has {width_of(register, kernel)} bits, not {width}")


def reader(operand: Operand, dtype: np.dtype[Any], kernel: Kernel, may_be_garbage: bool = False) -> Reader:
    """What gives an operand's values of this type: an array, or a scalar.

    may_be_garbage: of a register that nothing was written to, bytes of GARBAGE; else that is a fault.
    """
    if isinstance(operand, Literal):
        value = constant(operand.text, dtype)
        return lambda program: value
    if isinstance(operand, Symbol):
        if operand.name not in kernel.arrays or dtype != UNSIGNED[32]:
            raise Unsupported(f"the symbol {operand.name}")
        start = np.uint32(array_starts(kernel)[operand.name])
        return lambda program: start
    if not isinstance(operand, Register):
        raise Unsupported(f"the operand {operand}")
    _check_width(operand, dtype, kernel)
    name = operand.name

    def read(program: Program) -> Array:
        try:
            values = program.registers[name]
        except KeyError:
            if may_be_garbage:
                return garbage(program.threads, dtype)
            raise Uninitialised(f"{name} is read before it is written") from None
        return values if values.dtype == dtype else values.view(dtype)

    return read


def writer(operand: Operand, dtype: np.dtype[Any], kernel: Kernel) -> Writer:
    """What stores values of this type into a register; the sink _ takes any."""
    if operand == Symbol("_"):
        return lambda program, values, active: None
    if not isinstance(operand, Register) or operand.name in SPECIAL:
        raise Unsupported(f"the destination {operand}")
    _check_width(operand, dtype, kernel)
    name = operand.name

    def write(program: Program, values: Any, active: Active) -> None:
        if values.dtype != dtype:
            raise TypeError(f"{name}: expected {dtype}, got {values.dtype}")
        if values.ndim == 0:
            values = np.full(program.threads, values)
        if not active.is_all:
            before = program.registers.get(name)
            if before is None:
                before = garbage(program.threads, dtype)
            values = np.where(active.mask, bits_of(values), bits_of(before))
        program.registers[name] = values

    return write


def garbage(count: int, dtype: np.dtype[Any]) -> Array:
    """What registers hold that nothing was written to."""
    if dtype == np.bool_:
        return np.zeros(count, np.bool_)
    return np.full(count * dtype.itemsize, GARBAGE, np.uint8).view(dtype)


def array_starts(kernel: Kernel) -> dict[str, int]:
    """Where each array in shared memory starts: those of fixed size behind the launch's own, which is at 0."""
    if sum(not size for size in kernel.arrays.values()) > 1 or any(kernel.arrays.values()):
        raise Unsupported(f"the arrays {kernel.arrays} in shared memory")
    return dict.fromkeys(kernel.arrays, 0)
