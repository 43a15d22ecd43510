"""Where commands print: results to stdout, progress and errors to stderr."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from tetris_decode.wheels import NotInstalledError

WIDTH = 100
NOT_INSTALLED, WRONG_INPUT = 1, 2
# What a shell says of a process that ended by SIGINT.
INTERRUPTED = 130


def console() -> Console:
    """For tables of 100 columns."""
    made = Console(highlight=False)
    if not made.is_terminal:
        # A pipe or a file has no width; rich would take 80 columns and break the tables.
        made.width = WIDTH
    return made


def progress() -> Progress:
    """A bar for long work, on a terminal only; it leaves nothing behind."""
    on = Console(stderr=True)
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    return Progress(*columns, console=on, disable=not on.is_terminal, transient=True)


@contextmanager
def errors_in_a_sentence() -> Iterator[None]:
    """Wrong input or a file that cannot be read or written is status 2, something that is not installed status 1."""
    try:
        yield
    except (ValueError, OSError) as error:
        typer.echo(str(error), err=True)
        raise typer.Exit(NOT_INSTALLED if isinstance(error, NotInstalledError) else WRONG_INPUT) from None


def check_out(out: Path) -> None:
    """Before long work: ValueError unless `out` can be a file."""
    if out.is_dir() or not out.absolute().parent.is_dir():
        raise ValueError(f"out: expected a file in a directory that exists, got {out}")


@contextmanager
def partial_results(save: Callable[[], Path | None]) -> Iterator[None]:
    """On Ctrl-C, save what there is, say where, and exit with status 130.

    `save` writes and returns the file, or None if there is nothing to write yet.
    """
    try:
        yield
    except KeyboardInterrupt:
        path = save()
        typer.echo(f"interrupted: {f'what was done is in {path}' if path else 'nothing was done yet'}", err=True)
        raise typer.Exit(INTERRUPTED) from None
