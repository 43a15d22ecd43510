"""Options of the commands that replay recorded drafts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from tetris_decode import traces
from tetris_decode.traces import Run

Trace: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="FILE", help="Of `record`. Default: the runs that come with the package.")
]
Names: TypeAlias = Annotated[
    list[str] | None, typer.Option("--run", metavar="NAME", help="A run in it; repeatable. Default: all.")
]


def recorded_runs(trace: Path | None, names: Sequence[str] | None) -> list[Run]:
    """The named runs of a file, each once; ValueError if it has no such run."""
    runs = traces.load(trace) if trace else traces.load_runs()
    unknown = [name for name in names or () if name not in runs]
    if unknown:
        raise ValueError(f"run: expected one of {', '.join(runs)}, got {unknown[0]}")
    return [runs[name] for name in dict.fromkeys(names or runs)]
