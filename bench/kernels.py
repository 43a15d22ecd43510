"""What each kernel variant takes, without a GPU: `make kernels`.

Registers, shared memory and instructions are those of the compiled code. The rest comes from a launch of the variant
by a call of its public function, of which the compiled PTX is executed on the CPU (tests/ptx); cycles from replaying
the machine code along the way that the execution took, with assumed latencies. Nothing here is a time of a GPU.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
from collections.abc import Iterator
from typing import Any

import kernel_calls
import machine_code
import torch
import triton
from kernel_calls import Call, tensors
from ptx import cycles, driver, sass
from ptx.launch import Counts
from rich import box
from rich.console import Console
from rich.table import Table

from tetris_kernels.kernels import catalogue

VARIANTS = {variant.name: variant for variant in catalogue.variants()}
EXECUTABLE = [name for name in machine_code.TARGETS if name.startswith("sm_")]

# Fields of a row, and what the table calls them.
COLUMNS = {
    "variant": "variant",
    "target": "target",
    "registers": "registers\na thread",
    "shared": "shared\nbytes",
    "instructions": "instruc-\ntions",
    "batch": "executed call",
    "launches": "its\nlaunches",
    "programs": "programs",
    "warp_instructions": "warp in-\nstructions",
    "barriers": "barriers",
    "sectors": "sectors\nof 32 B",
    "cycles_alone": "cycles,\na warp alone",
    "cycles_together": "cycles,\nall warps",
}
CAPTION = """\
Executed PTX, not a GPU. Registers to instructions: of the compiled code (AMD: VGPRs). Launches: of the whole public
call. Programs to sectors: of this variant's launch, all its programs. Cycles: program 0's machine code replayed with
assumed latencies, a whole program on a multiprocessor of its own; uncalibrated, to rank variants, never a time."""

WIDTH = 200

Row = dict[str, Any]


def rows(names: list[str], targets: list[str]) -> Iterator[Row]:
    """A row for each of these variants on each target; what cannot be executed or replayed there is None."""
    for target in targets:
        executed = dict(_executed(set(names), target)) if target in EXECUTABLE else {}
        for name in names:
            compiled = machine_code.compile_variant(VARIANTS[name], target)
            found = machine_code.resources(compiled)
            found["registers"] = found.get("registers", found.get("vgprs"))
            yield dict.fromkeys(COLUMNS) | {"variant": name, "target": target} | found | executed.get(name, {})


def _executed(names: set[str], target: str) -> Iterator[tuple[str, Row]]:
    """What the launches of these variants took."""
    for call in kernel_calls.calls():
        wanted = names.intersection(call.variants)
        if not wanted:
            continue
        arguments = call.arguments()
        expected = call.function(**arguments, backend="torch")
        with driver.active(int(target.removeprefix("sm_"))) as device, device.reading(tensors(arguments)):
            result = call.function(**arguments, backend="triton")
        if not _same_integers(result, expected):
            raise AssertionError(f"{call.variants[0]}: the executed kernels and the torch backend differ")
        for name in wanted:
            yield name, _launch(name, target, call, device)


def _same_integers(result: object, expected: object) -> bool:
    """Whether both backends agree, where they have to do so exactly."""
    pairs = zip(tensors(result), tensors(expected), strict=True)
    return all(got.is_floating_point() or torch.equal(got, wanted) for got, wanted in pairs)


def _launch(name: str, target: str, call: Call, device: driver.PtxDriver) -> Row:
    # Of a call that launches a variant once.
    (counts,) = (counts for launched, counts in device.counts if launched == name)
    row = {"batch": call.batch, "launches": len(device.counts), "programs": device.executed[name]}
    row |= {field: getattr(counts, field) for field in ("warp_instructions", "barriers", "sectors")}
    compiled = machine_code.compile_variant(VARIANTS[name], target)
    return row | replayed(compiled, counts, device.executed[name])


def replayed(compiled: Any, counts: Counts, programs: int) -> Row:
    """Cycles of program 0 of a launch of so many and the machine instructions it issues, or why there are none."""
    try:
        walker = sass.Walker(sass.parse(machine_code.disassembly(compiled)), compiled.asm["ptx"])
        warps = [walker.walk(outcomes) for outcomes in counts.outcomes]
        if programs == 1 and (barriers := cycles.barriers(warps[0])) != counts.barriers:
            raise sass.ReplayError(f"{barriers} barriers where the execution has {counts.barriers}")
        taken = {"cycles_alone": cycles.alone(warps[0]), "cycles_together": cycles.together(warps)}
        return taken | {"issued": sum(map(len, warps))}
    except sass.ReplayError as error:
        return {"no_cycles": str(error)}


def show(found: list[Row]) -> None:
    table = Table(
        title=f"Kernels as Triton {triton.__version__} compiles them",
        caption=CAPTION,
        caption_justify="left",
        box=box.SIMPLE,
    )
    for field, title in COLUMNS.items():
        is_text = field in ("variant", "target", "batch")
        table.add_column(title, justify="left" if is_text else "right", no_wrap=True)
    for row in found:
        values = [row[field] for field in COLUMNS]
        table.add_row(*("-" if v is None else f"{v:,}" if isinstance(v, int) else v for v in values))
    # Rather lines that a terminal breaks than a table that is cut to fit.
    console = Console(width=WIDTH)
    console.print(table)
    for row in found:
        if "no_cycles" in row:
            console.print(f"No cycles of {row['variant']} on {row['target']}: {row['no_cycles']}", markup=False)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*", default=["*"], help="names of variants, e.g. 'select-*x8'; default: all")
    parser.add_argument("--target", action="append", choices=list(machine_code.TARGETS), help="default: sm_90")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON, with why a row has no cycles")
    arguments = parser.parse_args()
    names = [name for name in VARIANTS if any(fnmatch.fnmatch(name, pattern) for pattern in arguments.patterns)]
    if not names:
        parser.error(f"no variant is called {' or '.join(arguments.patterns)}")
    found = list(rows(names, arguments.target or ["sm_90"]))
    if arguments.json:
        print(json.dumps(found, indent=1))
    else:
        show(found)


if __name__ == "__main__":
    main()
