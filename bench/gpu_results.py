"""Results of a GPU run: CSV tables, a JSON of what they were measured on, and lines to read."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from pathlib import Path

Row = dict[str, object]


def write(path: Path, rows: Sequence[Row]) -> None:
    """A CSV file, whole after each call: a run that is cut short leaves what it has measured."""
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def write_notes(path: Path, about: dict[str, str]) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(about, indent=1) + "\n")


def table(rows: Sequence[Row], columns: Sequence[str]) -> str:
    """Aligned columns under their names."""
    cells = [list(columns), *([str(row[name]) for name in columns] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells)
