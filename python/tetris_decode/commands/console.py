"""Where commands print."""

from __future__ import annotations

from rich.console import Console

WIDTH = 100


def console() -> Console:
    """For tables of 100 columns."""
    made = Console(highlight=False)
    if not made.is_terminal:
        # A pipe or a file has no width; rich would take 80 columns and break the tables.
        made.width = WIDTH
    return made
