"""Loads, stores and atomics: the table of their spellings, and what they do."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ptx.faults import Unsupported
from ptx.memory import ATOMIC, LOAD, STORE, Memory, sectors, wavefronts
from ptx.parse import Address, Group, Instruction, Kernel, Operand, Register, Symbol
from ptx.program import Active, Program, Reader, reader, width_of, writer
from ptx.types import DTYPES, UNSIGNED, Array

Run = Callable[[Program, Active], None]

# evict_first and its policy are hints for the caches: results do not depend on them.
_STREAMED = "global.L1::evict_first.L2::cache_hint"
_SHARED = ("shared", "shared::cta")  # the same: the program's own


@dataclass(frozen=True)
class Access:
    space: str
    length: int  # elements
    type: str
    has_policy: bool = False


def _spellings(opcode: str, spaces: tuple[str, ...]) -> dict[str, Access]:
    table = {}
    for space, length, type_ in itertools.product(spaces, (1, 2, 4), ("b8", "b16", "b32", "b64")):
        if length * int(type_[1:]) <= 128:
            vector = f".v{length}" if length > 1 else ""
            access = Access("shared" if space in _SHARED else "global", length, type_, space == _STREAMED)
            table[f"{opcode}.{space}{vector}.{type_}"] = access
    return table


LOADS = _spellings("ld", ("global", _STREAMED, *_SHARED))
STORES = _spellings("st", ("global", *_SHARED))
PARAMETERS = {f"ld.param.{t}": t for t in ("b32", "b64", "u32", "u64", "f32")}

_OPERATIONS: dict[str, tuple[tuple[str, ...], Callable[[Any, Any], Any]]] = {
    "add": (("u32", "s32", "u64", "f32"), np.add),
    "min": (("u32", "s32", "u64", "s64"), np.minimum),
    "max": (("u32", "s32", "u64", "s64"), np.maximum),
    "and": (("b32", "b64"), np.bitwise_and),
    "or": (("b32", "b64"), np.bitwise_or),
    "xor": (("b32", "b64"), np.bitwise_xor),
    "exch": (("b32", "b64"), lambda old, new: new),
    "cas": (("b32", "b64"), lambda old, new: new),
}
ATOMICS = {
    f"{opcode}.{space}{order}.{operation}.{t}": (Access("shared" if space in _SHARED else "global", 1, t), operation)
    for operation, (types, _) in _OPERATIONS.items()
    for t in types
    for space, order in [("global", ""), ("global", ".gpu.relaxed"), ("global", ".gpu.acq_rel"), ("shared", "")]
    for opcode in ("atom", "red")
    if opcode == "atom" or operation not in ("exch", "cas")
}


def narrowest(kernel: Kernel, space: str) -> int:
    """The fewest bytes that one of the kernel's accesses takes: races need no finer cells."""
    named = LOADS | STORES | {spelling: access for spelling, (access, _) in ATOMICS.items()}
    used = [named[step.opcode] for step in kernel.instructions if step.opcode in named]
    return min((DTYPES[access.type].itemsize for access in used if access.space == space), default=4)


def locate(operand: Operand, space: str, kernel: Kernel) -> Reader:
    """What gives the addresses of an operand in brackets."""
    if not isinstance(operand, Address):
        raise Unsupported(f"the address {operand}")
    width = UNSIGNED[32]
    if isinstance(operand.base, Register) and (space == "global" or width_of(operand.base, kernel) == 64):
        width = UNSIGNED[64]
    elif space == "global":
        raise Unsupported(f"the global address {operand}")
    read, offset = reader(operand.base, width, kernel), operand.offset

    def addresses(program: Program) -> Array:
        return np.broadcast_to(np.asarray(read(program)).astype(np.int64) + offset, (program.threads,))

    return addresses


def prepare(program: Program, access: Access, addresses: Array, active: Active, kind: int, size: int) -> Memory:
    """Check and count an access; the memory it goes to."""
    memory = program.shared if access.space == "shared" else program.memory
    memory.check(addresses, size)
    warps = program.warp[active.threads]
    if access.space == "shared":
        program.wavefronts += wavefronts(warps, addresses, size)
    else:
        program.sectors += sectors(warps, addresses)
    return memory


def _parts(operand: Operand, length: int) -> tuple[Any, ...]:
    parts = operand.parts if isinstance(operand, Group) else (operand,)
    if len(parts) != length:
        raise Unsupported(f"{len(parts)} registers for {length}")
    return parts


def bind_parameter(instruction: Instruction, kernel: Kernel) -> Run:
    result, source = instruction.operands
    dtype = DTYPES[PARAMETERS[instruction.opcode]]
    if not isinstance(source, Address) or not isinstance(source.base, Symbol) or source.offset:
        raise Unsupported(f"the parameter {source}")
    name = source.base.name
    if kernel.parameters.get(name, "")[1:] != str(dtype.itemsize * 8):
        raise Unsupported(f"{dtype} of the parameter {name}")
    write = writer(result, dtype, kernel)
    return lambda program, active: write(program, program.arguments[name].view(dtype), active)


def _element(operand: Operand, dtype: np.dtype[Any], kernel: Kernel) -> np.dtype[Any]:
    """The type of the register behind an element: it may be wider, for 8 bits it always is."""
    if isinstance(operand, Register) and width_of(operand, kernel) > dtype.itemsize * 8:
        return UNSIGNED[width_of(operand, kernel)]
    return dtype


def bind_load(instruction: Instruction, kernel: Kernel) -> Run:
    access = LOADS[instruction.opcode]
    destination, source, *policy = instruction.operands
    _check_policy(policy, access, kernel)
    dtype = DTYPES[access.type]
    size = access.length * dtype.itemsize
    # Into a wider register an element is extended by 0, being of no signed type.
    types = [_element(part, dtype, kernel) for part in _parts(destination, access.length)]
    parts = _parts(destination, access.length)
    writes = [writer(part, wide, kernel) for part, wide in zip(parts, types, strict=True)]
    locations = locate(source, access.space, kernel)

    def load(program: Program, active: Active) -> None:
        addresses = locations(program)[active.threads]
        memory = prepare(program, access, addresses, active, LOAD, size)
        memory.check_written(addresses, size, instruction.used_bytes)
        memory.note(LOAD, addresses, size, active.threads, program.number)
        for part, (write, wide) in enumerate(zip(writes, types, strict=True)):
            values = np.zeros(program.threads, wide)
            values[active.threads] = memory.load(dtype, addresses, part)
            write(program, values, active)

    return load


def bind_store(instruction: Instruction, kernel: Kernel) -> Run:
    access = STORES[instruction.opcode]
    target, source = instruction.operands
    dtype = DTYPES[access.type]
    size = access.length * dtype.itemsize
    parts = _parts(source, access.length)
    types = [_element(part, dtype, kernel) for part in parts]
    reads = [reader(part, wide, kernel) for part, wide in zip(parts, types, strict=True)]
    locations = locate(target, access.space, kernel)

    def store(program: Program, active: Active) -> None:
        addresses = locations(program)[active.threads]
        memory = prepare(program, access, addresses, active, STORE, size)
        values = [
            np.broadcast_to(np.asarray(read(program)).astype(dtype), (program.threads,))[active.threads]
            for read in reads
        ]
        store_together(program, memory, addresses, values, active)

    return store


def store_together(program: Program, memory: Memory, addresses: Array, values: list[Array], active: Active) -> None:
    """Store values side by side; of threads that store the same at the same address, one counts for the races."""
    for part, element in enumerate(values):
        memory.store(addresses, element, part)
    size = len(values) * values[0].dtype.itemsize
    _, kept = np.unique(addresses, return_index=True)
    if any((memory.load(v.dtype, addresses, part) != v).any() for part, v in enumerate(values)):
        kept = np.arange(len(addresses))
    memory.note(STORE, addresses[kept], size, active.threads[kept], program.number)


def bind_atomic(instruction: Instruction, kernel: Kernel) -> Run:
    access, operation = ATOMICS[instruction.opcode]
    dtype, combine = DTYPES[access.type], _OPERATIONS[operation][1]
    returns = instruction.opcode.startswith("atom")
    result = instruction.operands[0] if returns else Symbol("_")
    target, *sources = instruction.operands[1:] if returns else instruction.operands
    if len(sources) != 1 + (operation == "cas"):
        raise Unsupported(f"the operands of {instruction.text}")
    write, locations = writer(_parts(result, 1)[0], dtype, kernel), locate(target, access.space, kernel)
    reads = [reader(_parts(source, 1)[0], dtype, kernel) for source in sources]

    def run(program: Program, active: Active) -> None:
        addresses = locations(program)[active.threads]
        memory = prepare(program, access, addresses, active, ATOMIC, dtype.itemsize)
        memory.check_written(addresses, dtype.itemsize, None)
        memory.note(ATOMIC, addresses, dtype.itemsize, active.threads, program.number)
        given = [np.broadcast_to(read(program), (program.threads,)) for read in reads]
        old = np.zeros(program.threads, dtype)
        for at in program.rng.permutation(len(addresses)):
            address, thread = addresses[at : at + 1], active.threads[at]
            before = memory.load(dtype, address)
            old[thread] = before[0]
            if operation != "cas" or before[0] == given[0][thread]:
                memory.store(address, np.asarray(combine(before, given[-1][thread]), dtype).reshape(1))
        write(program, old, active)

    return run


def _check_policy(operands: list[Operand], access: Access, kernel: Kernel) -> None:
    if len(operands) != access.has_policy:
        raise Unsupported(f"{len(operands)} cache policies")
    for operand in operands:
        reader(operand, UNSIGNED[64], kernel)
