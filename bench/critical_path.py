"""Our select beside the peers that are Triton kernels, without a GPU: `make bench-path`.

Each way is called on the sizes of the comparison. What it launches is executed as compiled, on the CPU (tests/ptx), and
its answer checked against the oracle; then the machine code of program 0 of each launch is replayed along the way that
the execution took, with assumed latencies. Nothing here is a time of a GPU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import median
from typing import Any

import torch
import triton
from kernel_calls import tensors
from ptx import cycles, driver
from ptx.faults import Unsupported
from rich import box
from rich.console import Console
from rich.table import Table
from torch.utils._python_dispatch import TorchDispatchMode

from bench import gate, inputs
from bench.inputs import Input
from bench.kernels import EXECUTABLE, WIDTH, replayed
from bench.peers import catalogue
from bench.peers.peer import Peer
from tetris_kernels import ops

OURS = "tetris_kernels, triton"
WAYS = (OURS, "all-pairs rank", "one-program sort")

# Assumed, uncalibrated: cycles from the end of a launch's work until the next one's begins.
LAUNCH = 1700
# Of a launch with more programs only program 0 is executed. All pairs of 256 x 8 are 512, of 1024 x 8 they are 8192.
MOST_PROGRAMS = 1024
MULTIPROCESSORS = 132  # of an H100: a launch of more programs than these goes on in turns
CLEAR = 1.2  # ratios of cycles nearer to 1 say nothing

CAPTION = f"""\
Executed PTX and a replay with assumed latencies, not a GPU. Launches: Triton's + torch's operations, which have no
replay. Warp instructions to sectors: all programs of all Triton launches. Cycles: the machine code of program 0 of each
launch, on a multiprocessor of its own, added up; uncalibrated, to rank ways, never a time; a difference below a fifth
says nothing. All programs: of each launch no less than the busiest of {MULTIPROCESSORS} multiprocessors takes to issue
its programs, each as long as program 0. Extra launches: {LAUNCH:,} cycles, assumed, for each beyond the first, torch's
too. Total: all programs and extra launches. >=: what has no replay counts as 0 cycles.
* Of a launch that is too large only program 0 is executed: no counts, and the answer is not checked. ~: extrapolated
from program 0 to programs that are not executed."""


@dataclass
class Row:
    """What a call took. None: not known; `notes` say why."""

    requests: int
    drafts: int
    way: str
    launches: int | None = None  # Triton's
    torch_operations: tuple[str, ...] = ()  # that run on the device, too
    is_checked: bool = False  # the answer is the oracle's
    warp_instructions: int | None = None
    barriers: int | None = None
    sectors: int | None = None
    cycles_alone: int | None = None
    cycles_together: int | None = None
    cycles_all_programs: int | None = None
    extra_launches: int | None = None  # cycles
    total: int | None = None
    without_replay: tuple[str, ...] = ()  # Triton launches whose cycles are not in the sums
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> str:
        return f"{self.requests}x{self.drafts}"

    @property
    def is_lower_bound(self) -> bool:
        """Whether the total is."""
        return bool(self.without_replay or self.torch_operations)


class Operations(TorchDispatchMode):
    """Notes torch's operations that would run on a device: all but views and allocations."""

    FREE = frozenset({"empty", "new_empty", "set_"})  # set_: by which the PTX driver gets at a tensor's bytes

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__.partition(".")[0]
        if func.namespace == "tetris_kernels":
            with self:  # what an eager call runs, of which nothing is to be missed
                return getattr(ops, name)(*args, **(kwargs or {}))
        if not func.is_view and name not in self.FREE:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def measure(peer: Peer, batch: Input, target: str = "sm_90", most_programs: int = MOST_PROGRAMS) -> Row:
    """A call with a host budget. Raises RedGate where its answer is wrong."""
    row = Row(*batch.logprobs.shape, peer.name)
    if not peer.takes("cuda", *batch.logprobs.shape):
        row.notes = (f"bench/peers/catalogue.py has it up to {peer.max_entries:,} entries",)
        return row
    operations = Operations()

    def noted(*arguments: Any) -> Any:
        with operations:
            return peer.select(*arguments)

    one_call = replace(peer, load=lambda: noted, device_budget=False)
    given = tensors((batch.logprobs, batch.draft_lens))
    with driver.active(int(target.removeprefix("sm_")), most_programs) as device, device.reading(given):
        try:
            verdict = gate.judge(one_call, batch, gate.expected(batch))
        except Unsupported as why:
            row.notes = (f"cannot be executed: {why}",)
            return row
    row.is_checked = all(launch.executed == launch.programs for launch in device.launched)
    if row.is_checked:
        gate.require_green([verdict])
    row.launches, row.torch_operations = len(device.launched), tuple(operations.names)
    _add_up(row, device)
    row.extra_launches = LAUNCH * (row.launches + len(row.torch_operations) - 1)
    row.total = (row.cycles_all_programs or 0) + row.extra_launches
    return row


def _add_up(row: Row, device: driver.PtxDriver) -> None:
    if row.is_checked:
        for field in ("warp_instructions", "barriers", "sectors"):
            setattr(row, field, sum(getattr(counts, field) for _, counts in device.counts))
    alone = together = all_programs = 0
    for (name, counts), launch in zip(device.counts, device.launched, strict=True):
        if launch.executed < launch.programs:
            row.notes += (f"only program 0 of the {launch.programs:,} of {name} is executed; nothing is checked",)
        found = replayed(launch, counts, launch.executed)
        if "no_cycles" in found:
            row.without_replay += (name,)
            row.notes += (f"{name} has no replay: {found['no_cycles']}",)
            continue
        share = math.ceil(launch.programs / MULTIPROCESSORS) * math.ceil(found["issued"] / cycles.SCHEDULERS)
        alone, together = alone + found["cycles_alone"], together + found["cycles_together"]
        all_programs += max(found["cycles_together"], share)
    if row.torch_operations:
        row.notes += (f"torch's {', '.join(row.torch_operations)} has no replay",)
    row.cycles_alone, row.cycles_together, row.cycles_all_programs = alone, together, all_programs


def side_by_side(
    shapes: Sequence[tuple[int, int]], kind: str, fraction: float, target: str, most_programs: int
) -> Iterator[Row]:
    """A row for each size and way."""
    for shape in shapes:
        batch = inputs.make(kind, *shape, fraction)
        for way in WAYS:
            yield measure(catalogue.by_name(way), batch, target, most_programs)


def over_inputs(shapes: Sequence[tuple[int, int]], target: str, rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Ours on every kind of input and budget: how far its cycles depend on them, and whether its worst is still
    shorter than the others' of `rows`, which hardly depend on the input."""
    ours = catalogue.by_name(OURS)
    for requests, drafts in shapes:
        found = {(i.kind, i.fraction): measure(ours, i, target) for i in inputs.grid(((requests, drafts),))}
        totals = {name: row.total for name, row in found.items() if row.total is not None and not row.is_lower_bound}
        smooth = totals.get(("smooth", 0.5))
        if smooth is None:
            continue
        others = [row.total for row in rows if row.size == f"{requests}x{drafts}" and row.way != OURS and row.total]
        worst, fraction = max(totals, key=totals.__getitem__)
        yield {
            "size": f"{requests}x{drafts}",
            "inputs": len(totals),
            "smooth 50%": smooth,
            "lowest": min(totals.values()),
            "median": round(median(totals.values())),
            "worst": totals[worst, fraction],
            "worst / smooth": f"{totals[worst, fraction] / smooth:.2f}",
            "worst on": f"{worst} {fraction:.0%}",
            "shortest other": min(others, default="-"),
        }


def shortest(rows: Sequence[Row]) -> Iterator[str]:
    """For each size whether ours has the shortest path."""
    for size, found in itertools.groupby(rows, lambda row: row.size):
        totals = {row.way: row for row in found if row.total is not None}
        others = [row for way, row in totals.items() if way != OURS]
        if OURS not in totals or not others or totals[OURS].is_lower_bound:
            yield f"{size}: nothing to compare"
            continue
        ours = totals[OURS].total or 0
        first = min(others, key=lambda row: row.total or 0)
        at_least = "at least " if first.is_lower_bound else ""
        ratio = (first.total or 0) / ours
        word = "" if ratio >= CLEAR else "not clearly " if ratio > 1 / CLEAR or at_least else "not "
        yield f"{size}: ours is {word}the shortest; {first.way} takes {at_least}{ratio:.2f} times as many cycles"


HEADS = ("warp in-\nstructions", "barriers", "sectors\nof 32 B", "cycles,\na warp alone", "cycles,\nall warps")
HEADS += ("cycles, all\nprograms", "extra\nlaunches", "total")


def show(rows: Sequence[Row], summary: Sequence[dict[str, Any]], title: str) -> None:
    console = Console(width=WIDTH)
    table = Table(title=title, caption=CAPTION, caption_justify="left", box=box.SIMPLE)
    for name in ("size", "way"):
        table.add_column(name, no_wrap=True)
    for name in ("launches", *HEADS):
        table.add_column(name, justify="right", no_wrap=True)
    for row in rows:
        table.add_row(*_cells(row), end_section=row.way == WAYS[-1])
    console.print(table)
    for row in rows:
        for note in row.notes:
            console.print(f"{row.size} {row.way}: {note}", markup=False, highlight=False)
    for line in shortest(rows):
        console.print(line, markup=False, highlight=False)
    if summary:
        table = Table(
            title="Ours, total cycles over all kinds of input and budgets; the shortest other, of the table above",
            box=box.SIMPLE,
        )
        for name in summary[0]:
            table.add_column(name, justify="left" if name in ("size", "worst on") else "right")
        for found in summary:
            table.add_row(*(_number(value) if isinstance(value, int) else value for value in found.values()))
        console.print(table)


def _cells(row: Row) -> Iterator[str]:
    yield row.size
    if row.launches is None:
        yield from (row.way, *"-" * (1 + len(HEADS)))
        return
    yield row.way if row.is_checked else f"{row.way} *"
    yield f"{row.launches} + {len(row.torch_operations)}" if row.torch_operations else str(row.launches)
    yield from map(_number, (row.warp_instructions, row.barriers, row.sectors))
    some_are_missing = bool(row.without_replay)
    yield _number(row.cycles_alone, some_are_missing)
    yield _number(row.cycles_together, some_are_missing)
    about = "" if row.is_checked else "~ "
    yield about + _number(row.cycles_all_programs, some_are_missing)
    yield _number(row.extra_launches)
    yield about + _number(row.total, row.is_lower_bound)


def _number(value: int | None, is_lower_bound: bool = False) -> str:
    return "-" if value is None else f">= {value:,}" if is_lower_bound else f"{value:,}"


def _shape(text: str) -> tuple[int, int]:
    requests, drafts = map(int, text.split("x"))
    return requests, drafts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=list(inputs.KINDS), default="smooth")
    parser.add_argument("--fraction", type=float, default=0.5, help="the budget, of the real drafts; default: 0.5")
    parser.add_argument("--target", choices=EXECUTABLE, default="sm_90")
    parser.add_argument("--shape", type=_shape, action="append", metavar="NxK", help="e.g. 64x8; default: all sizes")
    parser.add_argument("--most-programs", type=int, default=MOST_PROGRAMS, help="of a launch that is all executed")
    parser.add_argument("--no-summary", action="store_true", help="leave out ours over all kinds and budgets")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")
    given = parser.parse_args()
    torch.set_num_threads(1)
    shapes = given.shape or inputs.SHAPES
    try:
        rows = list(side_by_side(shapes, given.kind, given.fraction, given.target, given.most_programs))
        summary = [] if given.no_summary else list(over_inputs(shapes, given.target, rows))
    except gate.RedGate as red:
        sys.exit(str(red))
    if given.json:
        found = [asdict(row) | {"is_lower_bound": row.is_lower_bound} for row in rows]
        print(json.dumps({"rows": found, "ours over inputs": summary}, indent=1))
        return
    batch = f"{given.kind}, budget {given.fraction:.0%}, {given.target}"
    show(rows, summary, f"select on {batch}, as Triton {triton.__version__} compiles it")


if __name__ == "__main__":
    main()
