"""Policies under a changing load, as a table for a terminal of 100 columns and as a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group
from rich.markup import escape
from rich.table import Table

from tetris_decode.load import ADAPTIVES, PLAIN, Stage
from tetris_kernels import CostTable

UNITS = (
    "Throughput over that of no speculation with as many requests, full batches only; from left to right as time goes "
    "on. best fixed: the best of the rows above and no speculation, in hindsight in each column. drafts: verified per "
    "request and step. Adaptive budgets know the costs, the number of requests, and what the drafts of earlier steps "
    "promised: by their scores, by scores that are calibrated meanwhile, or with those of the same step too."
)


def tables(stages: Sequence[Stage], title: str) -> Group:
    """A row for each policy, a column for each stage."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 0, 0, 1), pad_edge=False)
    table.add_column("requests")
    for stage in stages:
        table.add_column(str(stage.batch_size), justify="right")
    for name in stages[0].throughputs:
        if name not in (PLAIN, *ADAPTIVES):
            table.add_row(name, *(_ratio(stage, name, PLAIN) for stage in stages))
    for name in ADAPTIVES:
        table.add_section()
        table.add_row(name, *(_ratio(stage, name, PLAIN) for stage in stages))
        table.add_row("  over best fixed", *(_ratio(stage, name, stage.best) for stage in stages))
        table.add_row("  drafts", *(f"{stage.budgets[name]:.2f}" for stage in stages))
    return Group(f"[bold]{escape(title)}[/]", table, UNITS)


def document(stages: Sequence[Stage], run: str, costs: CostTable) -> dict[str, Any]:
    """What was simulated, for a machine."""
    return {"run": run, "costs": asdict(costs), "stages": [asdict(stage) | {"best": stage.best} for stage in stages]}


def _ratio(stage: Stage, name: str, to: str) -> str:
    return f"{stage.throughputs[name] / stage.throughputs[to]:.2f}"
