"""Cycles that warps need for the machine instructions they go through.

Of ptxas's own control words: how long a warp stalls after each instruction, and which results it waits for. How long
a result takes is not in the code: those figures are assumed, and have never been compared with a GPU. So a count ranks
kernels of one kind; it is no time, and differences below a fifth say nothing.

Not modelled: caches and who else uses memory (each load takes as long), the pipes of arithmetic beyond ptxas's stalls,
instruction fetch, bank conflicts, and what a launch costs.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Sequence

from ptx.sass import Instruction, ReplayError

# Assumed, uncalibrated: cycles from issue until the result is there, of each operation that others wait for.
LATENCY = {
    "LDG": 600,  # from global memory: neither a hit in L2 nor one in L1
    "ATOMG": 700,
    "LDS": 30,
    "LDSM": 30,
    "ATOMS": 60,
    "LDC": 30,
    "LDCU": 30,
    "SHFL": 24,
    "REDUX": 24,
    "S2R": 25,
    "S2UR": 25,
    "MUFU": 20,
    "F2I": 16,
    "I2F": 16,
    "POPC": 16,
    "R2UR": 12,
}
# Assumed, uncalibrated: cycles until the operands of a store or a shuffle are read and may be overwritten.
READ = 12
# Assumed, uncalibrated: cycles from the last warp's arrival at a barrier until all go on.
BARRIER = 20
# Assumed, uncalibrated: cycles that an instruction of a warp takes the pipe which all four schedulers share.
SHARED_PIPE = {
    "ATOMG": 2,
    "ATOMS": 2,
    "LDG": 1,
    "LDS": 1,
    "LDSM": 1,
    "RED": 2,
    "REDG": 2,
    "REDUX": 2,
    "SHFL": 1,
    "STG": 1,
    "STS": 1,
    "STSM": 1,
}
SCHEDULERS = 4
_SCOREBOARDS = 6


@dataclasses.dataclass
class _Warp:
    issues: Sequence[Instruction]
    next: int = 0
    boards: list[int] = dataclasses.field(default_factory=lambda: [0] * _SCOREBOARDS)  # when each is down

    def is_done(self) -> bool:
        return self.next == len(self.issues)

    def following(self) -> Instruction:
        return self.issues[self.next]

    def ready(self, time: int) -> int:
        """When the next instruction may be issued, at the earliest at `time`."""
        return max([time, *(self.boards[board] for board in self.following().waits)])

    def issue(self, time: int, entry: int) -> int:
        """Issue the next instruction, which gets to its pipe at `entry`; when the one behind it may follow."""
        instruction = self.following()
        self.next += 1
        if instruction.sets is not None:
            if instruction.operation not in LATENCY:
                raise ReplayError(f"{instruction.operation} has to be waited for, but no latency is assumed for it")
            self._hold(instruction.sets, entry + LATENCY[instruction.operation])
        if instruction.reads is not None:
            self._hold(instruction.reads, entry + READ)
        return time + max(instruction.stall, 1)

    def _hold(self, board: int, until: int) -> None:
        self.boards[board] = max(self.boards[board], until)


def alone(issues: Sequence[Instruction]) -> int:
    """Cycles of one warp that shares nothing and meets no other at barriers."""
    warp, time = _Warp(issues), 0
    for instruction in issues:
        time = warp.ready(time)
        time = warp.issue(time, time)
        if instruction.operation == "BAR":
            time += BARRIER
    return time


def barriers(issues: Sequence[Instruction]) -> int:
    """How many barriers a warp comes to: as many as in the execution, or the replay went astray."""
    return sum(instruction.operation == "BAR" for instruction in issues)


def together(program: Sequence[Sequence[Instruction]]) -> int:
    """Cycles until the last of a program's warps is done: they share four schedulers, a pipe and the barriers."""
    warps = [_Warp(issues) for issues in program]
    free = [0] * SCHEDULERS  # when each scheduler issues next
    pipe = end = 0
    at_barrier: dict[int, int] = {}  # since when each warp waits
    queue = [(warp.ready(0), w) for w, warp in enumerate(warps)]
    while queue:
        time, w = heapq.heappop(queue)
        scheduler = w % SCHEDULERS
        if free[scheduler] > time:
            heapq.heappush(queue, (free[scheduler], w))
            continue
        free[scheduler] = time + 1
        instruction, entry = warps[w].following(), time
        if instruction.operation in SHARED_PIPE:
            entry = max(time, pipe)
            pipe = entry + SHARED_PIPE[instruction.operation]
        goes_on = {w: warps[w].issue(time, entry)}
        end = max(end, goes_on[w])
        if instruction.operation == "BAR":
            at_barrier |= goes_on
            goes_on = {}
            if len(at_barrier) == len(warps):
                goes_on = dict.fromkeys(at_barrier, max(at_barrier.values()) + BARRIER)
                at_barrier = {}
        for other, after in goes_on.items():
            if not warps[other].is_done():
                heapq.heappush(queue, (warps[other].ready(after), other))
    if at_barrier:
        raise ReplayError(f"{len(at_barrier)} of {len(warps)} warps wait at a barrier that the others never reach")
    return end
