"""The text of a PTX module with one kernel -> its instructions, parameters and shared memory."""

from __future__ import annotations

import re
from dataclasses import dataclass

from ptx.faults import Unsupported
from ptx.types import DTYPES


@dataclass(frozen=True)
class Register:
    """A register, or a special one such as %tid.x."""

    name: str


@dataclass(frozen=True)
class Literal:
    """A constant."""

    text: str


@dataclass(frozen=True)
class Symbol:
    """A label, a parameter, or an array in shared memory."""

    name: str


@dataclass(frozen=True)
class Address:
    """[base + offset]"""

    base: Register | Symbol
    offset: int


@dataclass(frozen=True)
class Group:
    """{a, b, ...}: the parts of a vector."""

    parts: tuple[Register | Literal | Symbol, ...]


@dataclass(frozen=True)
class Pair:
    """d|p: a result and its predicate."""

    value: Register
    predicate: Register


Operand = Register | Literal | Symbol | Address | Group | Pair


@dataclass(frozen=True)
class Guard:
    """@p or @!p"""

    register: Register
    negated: bool


@dataclass(frozen=True)
class Instruction:
    opcode: str  # with all of its modifiers, as written
    operands: tuple[Operand, ...]
    guard: Guard | None
    text: str
    line: int  # of the PTX
    source: str  # file:line that it was compiled from
    used_bytes: int | None  # which bytes of a load are used, where the compiler says so


@dataclass(frozen=True)
class Kernel:
    name: str
    parameters: dict[str, str]  # PTX types by name, in order
    threads: int  # of a program
    registers: dict[str, str]  # PTX types by the letters of the name
    arrays: dict[str, int]  # in shared memory: bytes by name; 0 is the launch's to choose
    instructions: tuple[Instruction, ...]
    labels: dict[str, int]  # index of the next instruction


_HEADER = re.compile(r"\.(version|target|address_size)\s")
_SHARED = re.compile(r"(?:\.extern\s+)?\.shared\s+\.align\s+\d+\s+\.b8\s+([\w$]+)\[(\d*)\]")
# What printf and its like would use; an instruction that names one is refused, since it is not a known symbol.
_CONSTANTS = re.compile(r"\.global\s+\.align\s+1\s+\.b8\s+_\$_str")
_ENTRY = re.compile(r"\.visible\s+\.entry\s+(\w+)\(")
_PARAMETER = re.compile(r"\.param\s+\.(u32|u64|f32)\s+(?:\.ptr\s+\.global\s+\.align\s+\d+\s+)?(\w+)")
_REGISTERS = re.compile(r"\.reg\s+\.(\w+)\s+%([a-z]+)<\d+>")
_STATEMENT = re.compile(r"(?:@(!?)(%\w+)\s+)?([a-z][\w.:]*)(?:\s+(.*))?")
_OPERAND = re.compile(r"\s*(\{[^}]*\}|\[[^\]]*\]|[^,{}\[\]]+?)\s*(?:,|$)")
_ADDRESS = re.compile(r"\[\s*([%\w$.]+)\s*(?:\+\s*(-?\w+))?\s*\]")


def parse(text: str) -> Kernel:
    """The one kernel of a module."""
    head, _, body = text.partition("\n{\n")
    body, end, rest = body.partition("\n}\n")
    if not end or ".entry" in rest:
        raise Unsupported("a module of other than one kernel")
    name, parameters, threads, arrays = _parse_head(head)
    files = {number: path.rsplit("/", 1)[-1] for number, path in re.findall(r'\.file\s+(\d+)\s+"([^"]+)"', rest)}

    registers: dict[str, str] = {}
    labels: dict[str, int] = {}
    instructions: list[Instruction] = []
    source, used_bytes = "", None
    for number, line in enumerate(body.split("\n"), start=head.count("\n") + 3):
        for statement in map(str.strip, line.split("//")[0].split(";")):
            if not statement:
                continue
            if found := re.fullmatch(r"(\$\w+):", statement):
                labels[found[1]] = len(instructions)
            elif found := _REGISTERS.fullmatch(statement):
                kind, prefix = found.groups()
                if kind not in DTYPES:
                    raise Unsupported(f"registers {statement}")
                registers[prefix] = kind
            elif found := re.match(r"\.loc\s+(\d+)\s+(\d+)\s", statement):
                source = f"{files.get(found[1], '?')}:{found[2]}"
            elif found := re.fullmatch(r'\.pragma\s+"used_bytes_mask (0x[0-9a-f]+)"', statement):
                used_bytes = int(found[1], 16)
            else:
                instructions.append(_parse_statement(statement, number, source, used_bytes))
                used_bytes = None
    return Kernel(name, parameters, threads, registers, arrays, tuple(instructions), labels)


def _parse_head(head: str) -> tuple[str, dict[str, str], int, dict[str, int]]:
    name, threads = "", 0
    parameters: dict[str, str] = {}
    arrays: dict[str, int] = {}
    for line in head.split("\n"):
        statement = line.split("//")[0].strip().rstrip(",;")
        if not statement or statement == ")" or _HEADER.match(statement) or _CONSTANTS.match(statement):
            continue
        if found := _ENTRY.fullmatch(statement):
            name = found[1]
        elif found := _PARAMETER.fullmatch(statement):
            parameters[found[2]] = found[1]
        elif found := _SHARED.fullmatch(statement):
            arrays[found[1]] = int(found[2] or 0)
        elif found := re.fullmatch(r"\.reqntid\s+(\d+)(?:, 1, 1)?", statement):
            threads = int(found[1])
        elif not re.fullmatch(r"\.(maxnreg|minnctapersm|maxntid)\s+\d+", statement):
            raise Unsupported(f"the directive {statement}")
    if not name or threads < 1 or threads % 32:
        raise Unsupported(f"kernel {name!r} of {threads} threads")
    return name, parameters, threads, arrays


def _parse_statement(statement: str, line: int, source: str, used_bytes: int | None) -> Instruction:
    found = _STATEMENT.fullmatch(statement)
    if not found:
        raise Unsupported(f"line {line} of the PTX: {statement}")
    negated, guard, opcode, rest = found.groups()
    rest = (rest or "").strip()
    parts = [match for match in _OPERAND.finditer(rest)]
    if "".join(match[0] for match in parts) != rest:
        raise Unsupported(f"line {line} of the PTX: the operands of {statement}")
    operands = tuple(_parse_operand(match[1]) for match in parts)
    return Instruction(
        opcode,
        operands,
        Guard(Register(guard), negated == "!") if guard else None,
        " ".join(statement.split()),
        line,
        source,
        used_bytes,
    )


def _parse_operand(text: str) -> Operand:
    if text.startswith("{"):
        return Group(tuple(_parse_plain(part.strip()) for part in text[1:-1].split(",")))
    if text.startswith("["):
        found = _ADDRESS.fullmatch(text)
        if not found:
            raise Unsupported(f"the address {text}")
        base = _parse_plain(found[1])
        if isinstance(base, Literal):
            raise Unsupported(f"the address {text}")
        return Address(base, int(found[2] or "0", 0))
    if "|" in text:
        value, predicate = (_parse_plain(part.strip()) for part in text.split("|"))
        if not isinstance(value, Register) or not isinstance(predicate, Register):
            raise Unsupported(f"the operand {text}")
        return Pair(value, predicate)
    return _parse_plain(text)


def _parse_plain(text: str) -> Register | Literal | Symbol:
    if re.fullmatch(r"%\w+(\.[xyz])?", text):
        return Register(text)
    if re.fullmatch(r"-?\d[\w.]*", text):
        return Literal(text)
    if re.fullmatch(r"[A-Za-z_$][\w$]*", text):
        return Symbol(text)
    raise Unsupported(f"the operand {text}")
