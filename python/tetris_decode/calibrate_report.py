"""What calibration gains, as tables for a terminal of 100 columns and as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from tetris_decode.calibrate import BINS, FOLDS, Change, Fitted, Gained
from tetris_decode.traces import Run

TITLE = (
    "Do calibrated scores say better which drafts are accepted? What calibrates a request's scores was learned from "
    f"other requests ({FOLDS} folds): a logistic curve with an intercept for each position, acceptance rates in bins, "
    "a rising step function. Online: the logistic curve, learned in the same pass."
)
QUALITY = (
    "Survival estimates, products of scores, of all recorded drafts. ECE: mean gap between estimated and observed "
    f"survival in {BINS} bins, in points. AUC: how often the estimate of a draft that survives is above that of one "
    "that does not, in %. In brackets: the 95 % interval of the change, requests resampled."
)
GAINS = (
    "As drafted: accepted drafts per verification (one request in one step). The others: the change in %, in brackets "
    "its 95 % interval, requests resampled. TETRIS chooses among all recorded drafts."
)


def tables(fits: Sequence[Fitted], gains: Sequence[Gained], runs: Sequence[Run], batch_size: int) -> Group:
    parts: list[RenderableType] = [f"[bold]{TITLE}[/]\n", _quality(fits), QUALITY]
    title = f"TETRIS in batches of {batch_size} requests, by drafts verified per request (k):"
    parts += ["\n" + title, _gains(gains), GAINS]
    return Group(*parts, "\n" + _closing(runs))


def document(fits: Sequence[Fitted], gains: Sequence[Gained], runs: Sequence[Run], batch_size: int) -> dict[str, Any]:
    return {
        "runs": {run.name: dict(run.about) for run in runs},
        "folds": FOLDS,
        "batch_size": batch_size,
        "fits": [asdict(fit) for fit in fits],
        "gains": [asdict(gain) for gain in gains],
    }


def _quality(fits: Sequence[Fitted]) -> Table:
    """A section for each run, a row for each way."""
    table = _table("scores", "ECE", "change", "AUC", "change")
    for run in dict.fromkeys(fit.run for fit in fits):
        table.add_row(run, style="bold")
        for fit in (fit for fit in fits if fit.run == run):
            error, auc = _change(fit.error_change), _change(fit.auc_change)
            table.add_row(f"  {fit.method}", f"{100 * fit.error:.1f}", error, f"{100 * fit.auc:.1f}", auc)
    return table


def _gains(gains: Sequence[Gained]) -> Table:
    """A section for each run, a row for each way, a column for each budget."""
    budgets = list(dict.fromkeys(g.drafts_per_request for g in gains))
    table = _table("scores", *(f"k = {k:g}" for k in budgets))
    for run in dict.fromkeys(g.run for g in gains):
        table.add_row(run, style="bold")
        of_run = [g for g in gains if g.run == run]
        for method in dict.fromkeys(g.method for g in of_run):
            table.add_row(f"  {method}", *(_gain(g) for g in of_run if g.method == method))
    return table


def _table(*headers: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for i, header in enumerate(headers):
        table.add_column(header, justify="right" if i else "left")
    return table


def _change(change: Change | None) -> str:
    return f"{100 * change.value:+.1f} ({100 * change.low:+.1f} to {100 * change.high:+.1f})" if change else "-"


def _gain(gained: Gained) -> str:
    of = gained.gain
    if of is None:
        return f"{gained.accepted_per_verification:.2f}"
    return f"{of.percent:+.1f} ({of.low:+.1f} to {of.high:+.1f})"


def _closing(runs: Sequence[Run]) -> str:
    models = ", ".join(dict.fromkeys(run.about.get("model", "an unnamed model") for run in runs))
    closing = f"Measured: acceptance of recorded drafts of {models}; every text is decoded to its end."
    drawn = ", ".join(run.name for run in runs if run.drawn)
    return f"{closing} Drafts of {drawn} were drawn: there the replay is approximate." if drawn else closing
