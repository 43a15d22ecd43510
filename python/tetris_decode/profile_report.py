"""A cost table for a terminal of 100 columns."""

from __future__ import annotations

from pathlib import Path

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from tetris_kernels import CostTable

UNITS = (
    "tokens: in one verification, each running request's last one and the drafts. ms: of a step, all but drafting, "
    "the median; where more tokens seemed cheaper, neighbours share their mean. over the first: what the tokens above "
    "those of the first row cost. Drafting: ms for 1, 2, ... drafts of every request."
)


def tables(table: CostTable, path: Path) -> Group:
    """What was measured, and where it was written."""
    steps = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for header in ("tokens", " ms per step", " over the first", " ms per token more"):
        steps.add_column(header, justify="right")
    first = table.seconds[0]
    for i, (tokens, seconds) in enumerate(zip(table.tokens, table.seconds, strict=True)):
        more = (seconds - table.seconds[i - 1]) / (tokens - table.tokens[i - 1]) if i else None
        steps.add_row(
            str(tokens),
            f"{1e3 * seconds:.1f}",
            f"{seconds / first - 1:+.1%}",
            "-" if more is None else f"{1e3 * more:.2f}",
        )
    about = ", ".join(f"{name} {value}" for name, value in table.key.items())
    drafting = " ".join(f"{1e3 * seconds:.2f}" for seconds in table.draft_seconds[1:])
    shape = "buckets: what is between two costs as the next" if table.staircase else "between two on the straight line"
    return Group(
        f"[bold]{escape(about)}[/]",
        f"Verifications, {shape}:",
        steps,
        f"drafting: {drafting} ms",
        "",
        UNITS,
        f"\nWritten to {escape(str(path))}.",
    )
