"""Registers and instructions of every variant on every target, kept in budgets.json: `make budgets` writes it.

The figures are one compiler's, so the file has them under Triton's version. They may shrink freely and grow a little;
beyond that the file has to be written again, which shows in its diff.
"""

from __future__ import annotations

import concurrent.futures
import json
from pathlib import Path

import machine_code
import triton

from tetris_kernels.kernels import catalogue

PATH = Path(__file__).with_name("budgets.json")
GROWTH = 0.10
SLACK = 2  # what a count may grow by however small it is: a tenth of 8 registers is none

Figures = dict[str, int]  # of one row: a variant on a target

VARIANTS = {variant.name: variant for variant in catalogue.variants()}
ROWS = {f"{name} {target}": (name, target) for name in VARIANTS for target in machine_code.TARGETS}


def measure(row: str) -> Figures:
    """What a row compiles to here."""
    name, target = ROWS[row]
    found = machine_code.resources(machine_code.compile_variant(VARIANTS[name], target))
    # Of the others, spills have to be none and shared memory has a limit: the compile tests say so.
    return {name: value for name, value in found.items() if name not in ("spills", "shared")}


def growth(row: str, budget: Figures, found: Figures) -> list[str]:
    """What exceeds the budget, and what only one of both has: a line each."""
    if budget.keys() != found.keys():
        return [f"{row}: expected {', '.join(budget)}, got {', '.join(found)}"]
    return [
        f"{row}: {name} grew from {budget[name]} to {found[name]}"
        for name in found
        if found[name] > budget[name] + max(GROWTH * budget[name], SLACK)
    ]


def read(path: Path = PATH, version: str = triton.__version__) -> dict[str, Figures] | None:
    """The rows of a version of Triton; None if there are none."""
    return json.loads(path.read_text(encoding="utf-8")).get(version)


def write(rows: dict[str, Figures], path: Path = PATH, version: str = triton.__version__) -> None:
    """One line a row, so that a diff shows which changed."""
    lines = ",\n".join(f"{json.dumps(row)}: {json.dumps(figures)}" for row, figures in rows.items())
    path.write_text(f'{{"{version}": {{\n{lines}\n}}}}\n', encoding="utf-8")


def main() -> None:
    # Two processes: what is not in Triton's cache takes minutes to compile.
    with concurrent.futures.ProcessPoolExecutor(2) as pool:
        rows = dict(zip(ROWS, pool.map(measure, ROWS, chunksize=5), strict=True))
    write(rows)
    print(f"{PATH.name}: {len(rows)} rows of Triton {triton.__version__}")


if __name__ == "__main__":
    main()
