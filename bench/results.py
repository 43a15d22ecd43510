"""Results as a run writes them: a table with what it was measured on, under bench/results/."""

from __future__ import annotations

import csv
import json
import platform
import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import torch
import triton

import tetris_kernels

FOLDER = Path(__file__).parent / "results"


def environment(device: str) -> dict[str, str]:
    """Versions, device, commit and date of a run."""
    return {
        "device": device,
        "tetris_kernels": tetris_kernels.__version__,
        "commit": commit(),
        "torch": torch.__version__,
        "triton": triton.__version__,
        "python": platform.python_version(),
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d"),
    }


def commit() -> str:
    """The commit that is measured, with a + where files differ from it."""
    described = subprocess.run(
        ["git", "describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return described.stdout.strip() or "unknown"


def write(name: str, about: dict[str, str], rows: Sequence[dict[str, object]], folder: Path = FOLDER) -> list[Path]:
    """`name.csv` with the rows, `name.json` with what they were measured on. Returns both paths."""
    folder.mkdir(exist_ok=True)
    table, notes = folder / f"{name}.csv", folder / f"{name}.json"
    with table.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    notes.write_text(json.dumps(about, indent=1) + "\n")
    return [table, notes]
