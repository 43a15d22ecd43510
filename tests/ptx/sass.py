"""The machine instructions that a warp goes through, in order: a cubin's listing, driven by an execution of the PTX.

The listing says of each instruction which line of the PTX it comes from. ptxas makes a branch of each branch that it
keeps, and of some guarded instructions; it turns them over and moves code around, but the line stays. So a branch goes
where the execution went at that line. What does not fit (an operation that is not known, two branches of one line, a
branch whose sides cannot be told apart, an outcome too few or too many) is a ReplayError, never a guess.

Its limits: no calls, and no BRA.U and BRA.CONV, for which the listing has no line of their own; so some variants cannot
be replayed on sm_80 and sm_100. Lanes that part between two sides of a branch, or in a loop, are refused too. A guarded
instruction counts as effective each time if its line ever was. A branch that ptxas left out is not missed.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Sequence

from ptx.program import Outcomes

# Architectures whose instructions have 16 bytes and the control fields where `_control` reads them.
ARCHITECTURES = (80, 90, 100)

# Operations that go on to the next instruction. The last line is about lanes that wait for each other within a warp.
_STRAIGHT = """
    ATOMG ATOMS CREDUX CS2R DEPBAR F2I FADD FADD2 FFMA FFMA2 FHADD FMNMX FMNMX3 FMUL FMUL2 FSEL FSETP HADD2 HFMA2 I2F
    I2FP IABS IADD3 IMAD IMNMX ISETP LDC LDCU LDG LDS LDSM LEA LOP3 MOV MUFU NOP P2R PLOP3 POPC PRMT R2P R2UR RED REDG
    REDUX S2R S2UR SEL SGXT SHF SHFL STG STS STSM UIADD3 UIMAD UISETP ULDC ULEA ULOP3 UMOV UP2UR UPOPC USEL USGXT USHF
    VIADD VIADDMNMX VIMNMX VIMNMX3 VOTEU
    BREAK BSSY BSYNC WARPSYNC
"""
KNOWN = frozenset(_STRAIGHT.split()) | {"BAR", "BRA", "EXIT"}

# How many instructions have to speak for one reading of a branch to outweigh one that ptxas moved to the other side.
CLEAR = 10


class ReplayError(ValueError):
    """The listing and the execution do not fit together, or the listing has something that is not known."""


@dataclasses.dataclass(frozen=True)
class Instruction:
    """A machine instruction with what ptxas wants waited for."""

    operation: str  # without modifiers
    line: int  # of the PTX, counted from 1
    is_conditional: bool  # issued in any case, but effective only where a predicate holds
    stall: int  # cycles until the warp's next instruction
    sets: int | None  # the scoreboard that stands until the result is there
    reads: int | None  # the scoreboard that stands until the operands are read
    waits: tuple[int, ...]  # scoreboards that have to be down
    target: int | None  # of a branch or an exit: the index of the next instruction where it is taken


_END = "behind the last instruction"
_LINE = re.compile(r'//## File "\.nv_debug_ptx_txt", line (\d+)')
_LABEL = re.compile(r"(\.L\w+):")
_CODE = re.compile(r"\s+/\*[0-9a-f]{4,}\*/\s+(@!?U?P\w+\s+)?(([A-Z]\w*)\S*.*?)\s*;\s+/\* 0x[0-9a-f]{16} \*/")
_UPPER = re.compile(r"\s+/\* 0x([0-9a-f]{16}) \*/")
_BRANCH = re.compile(r"BRA(?P<condition>\s+!?U?P\w+,)?\s+`\((?P<label>\.L\w+)\)")


def parse(listing: str) -> list[Instruction]:
    """The instructions of a listing of `machine_code.disassembly`."""
    architecture = re.search(r"EF_CUDA_SM(\d+)|^\s*\.target\s+sm_(\d+)", listing, re.MULTILINE)
    if architecture is None or int(architecture[1] or architecture[2]) not in ARCHITECTURES:
        raise ReplayError(f"expected code of sm {ARCHITECTURES}, got {architecture and architecture[0]}")
    code: list[Instruction] = []
    labels: dict[str, int] = {}
    aims: dict[int, str] = {}
    ptx_line = 0
    texts = iter(listing.splitlines())
    for text in texts:
        if found := _LINE.search(text):
            ptx_line = int(found[1])
        elif found := _LABEL.match(text):
            labels[found[1]] = len(code)
        elif found := _CODE.match(text):
            upper = _UPPER.fullmatch(next(texts, ""))
            if upper is None:
                raise ReplayError(f"expected the upper half of an encoding behind: {text.strip()}")
            guard, body, operation = found.groups()
            stall, sets, reads, waits = _control(int(upper[1], 16))
            conditional = guard is not None
            if operation == "BRA":
                branch = _BRANCH.fullmatch(body)
                if branch is None:  # among them BRA.U, for which the table of lines has no entry
                    raise ReplayError(f"unknown form of branch: {body}")
                aims[len(code)] = branch["label"]
                conditional |= branch["condition"] is not None
            elif operation == "EXIT":
                aims[len(code)] = _END
            elif operation not in KNOWN:
                raise ReplayError(f"unknown operation: {body}")
            code.append(Instruction(operation, ptx_line, conditional, stall, sets, reads, waits, None))
        elif "/* 0x" in text:
            raise ReplayError(f"unknown form of instruction: {text.strip()}")
    labels[_END] = len(code)
    for i, label in aims.items():
        if label not in labels:
            raise ReplayError(f"unknown label {label}")
        code[i] = dataclasses.replace(code[i], target=labels[label])
    return code


def _control(upper: int) -> tuple[int, int | None, int | None, tuple[int, ...]]:
    """Stall, scoreboards set and wait mask, from the upper 64 bits of an instruction."""
    stall, sets, reads, waits = upper >> 41 & 15, upper >> 46 & 7, upper >> 49 & 7, upper >> 52 & 63
    if upper >> 62 or 6 in (sets, reads):
        raise ReplayError(f"unknown control word in {upper:#018x}")
    return (
        stall,
        None if sets == 7 else sets,
        None if reads == 7 else reads,
        tuple(board for board in range(6) if waits >> board & 1),
    )


class Walker:
    """Finds a warp's way through machine code that was compiled from this PTX."""

    def __init__(self, code: Sequence[Instruction], ptx: str) -> None:
        self._code = code
        self._texts = ["", *ptx.splitlines()]
        self._ptx_flow = list(_ptx_flow(self._texts))
        self._flow = [_next(i, instruction) for i, instruction in enumerate(code)] + [()]
        self._lines = Counter(instruction.line for i, instruction in enumerate(code) if len(self._flow[i]) == 2)
        self._known: dict[int, tuple[bool, bool]] = {}

    def walk(self, outcomes: Outcomes) -> list[Instruction]:
        """The instructions that a warp issues from entry to exit, given its outcomes in an execution of the PTX.

        A guarded instruction of a line that had no effect is there as a NOP: it is issued, but nothing waits for it.
        """
        left = {line: list(reversed(seen)) for line, seen in outcomes.items()}
        effective = self._effective_lines(outcomes)
        issued, at = [], 0
        while at < len(self._code):
            instruction = self._code[at]
            if instruction.is_conditional and instruction.target is None and instruction.line not in effective:
                instruction = dataclasses.replace(instruction, operation="NOP", sets=None, reads=None)
            issued.append(instruction)
            if len(self._flow[at]) < 2:
                (at,) = self._flow[at]
                continue
            line = instruction.line
            if not left.get(line):
                raise ReplayError(f"{instruction.operation} comes once more than line {line} of the PTX")
            at = self._flow[at][not self._is_taken(at, left[line].pop())]
        for line in self._lines:
            if left.get(line):
                raise ReplayError(f"line {line} of the PTX came {len(left[line])} times more than its branch")
        return issued

    def _is_taken(self, branch: int, outcome: tuple[int, int]) -> bool:
        """Whether a warp with this outcome at the branch's line takes the branch."""
        if branch not in self._known:
            self._known[branch] = self._compare(branch)
        if_held, may_part = self._known[branch]
        came, held = outcome
        if not 0 < held < came:
            return if_held == (held > 0)
        if not may_part:
            raise ReplayError(f"the lanes of a warp part at line {self._code[branch].line} of the PTX")
        # The lanes that do not go through the one side wait behind it.
        return not sides_of(self._flow, branch)[1]

    def _effective_lines(self, outcomes: Outcomes) -> set[int]:
        """The lines of PTX that a warp with these outcomes ran, but for those whose guard never held."""
        flow = list(self._ptx_flow)
        for line, following in enumerate(flow):
            if len(following) == 2:
                seen, (target, next_line) = outcomes.get(line, ()), following
                flow[line] = (target,) * any(held for _, held in seen)
                flow[line] += (next_line,) * any(held < came for came, held in seen)
        ran = _reached(flow, 1, -1)
        return {line for line in ran if line not in outcomes or any(held for _, held in outcomes[line])}

    def _compare(self, branch: int) -> tuple[bool, bool]:
        """Whether the branch is taken where the guard holds, and whether only one of its sides has code."""
        line = self._code[branch].line
        if self._lines[line] > 1:
            raise ReplayError(f"{self._lines[line]} branches come from line {line} of the PTX")
        text = self._texts[line] if line < len(self._texts) else ""
        if len(self._ptx_flow[line]) == 2:
            holds, fails = sides_of(self._ptx_flow, line)
        elif re.match(r"\s*@", text):
            holds, fails = {line}, set()
        else:
            raise ReplayError(f"a branch comes from line {line} of the PTX, which has no guard: {text.strip()}")
        taken, passed = sides_of(self._flow, branch)
        agree = self._lines_in(taken, holds) + self._lines_in(passed, fails)
        disagree = self._lines_in(taken, fails) + self._lines_in(passed, holds)
        if min(agree, disagree) * CLEAR >= max(agree, disagree):
            raise ReplayError(
                f"the sides of the branch of line {line} of the PTX look alike: {agree} instructions for the one "
                f"reading, {disagree} for the other"
            )
        return agree > disagree, not (taken and passed)

    def _lines_in(self, instructions: set[int], lines: set[int]) -> int:
        return sum(self._code[i].line in lines for i in instructions if i < len(self._code))


Flow = Sequence[tuple[int, ...]]  # the successors of each node; of a branch first the one where it is taken


def sides_of(flow: Flow, branch: int) -> tuple[set[int], set[int]]:
    """What only the one, and what only the other way out of a branch leads to, until the branch comes again."""
    first, second = (_reached(flow, start, branch) for start in flow[branch])
    return first - second, second - first


def _reached(flow: Flow, start: int, stop: int) -> set[int]:
    found, front = set(), {start} - {stop}
    while front:
        found |= front
        front = {after for node in front for after in flow[node]} - found - {stop}
    return found


def _next(i: int, instruction: Instruction) -> tuple[int, ...]:
    if instruction.target is None:
        return (i + 1,)
    return (instruction.target, i + 1) if instruction.is_conditional else (instruction.target,)


def _ptx_flow(texts: Sequence[str]) -> Iterator[tuple[int, ...]]:
    """The lines that follow each line of PTX; the last line stands for the end."""
    end = len(texts) - 1
    labels = {found[1]: i for i, text in enumerate(texts) if (found := re.match(r"(\$\w+):", text))}
    for i, text in enumerate(texts):
        found = re.match(r"\s*(@!?%\w+\s+)?(?:bra(?:\.uni)?\s+(\$\w+)|ret);", text)
        if found is None:
            yield (min(i + 1, end),)
        else:
            target = labels[found[2]] if found[2] else end
            yield (target, i + 1) if found[1] else (target,)
