"""What was found about losslessness, as a table for a terminal of 100 columns and as a document."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from tetris_decode.goodness import Fit
from tetris_decode.lossless import LEVEL, REJECTED, Report

TITLE = (
    "Do score, select, pack and accept emit what the target alone would emit? Random Markov chains as target and "
    "drafter: the exact law is known. Every way to score and to draw the bonus must fit it, but not the last."
)
HEADERS = ("way", "p\neach", "p\njoint", "variation %\neach (limit)", "variation %\njoint (limit)", "must be")


def table(report: Report) -> Group:
    rows = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for i, header in enumerate(HEADERS):
        rows.add_column(header, justify="right" if 0 < i < len(HEADERS) - 1 else "left", no_wrap=True)
    for result in report.results:
        fits = (result.each, result.joint)
        cells = [_probability(f.p_value) for f in fits] + [_variation(f, report.level) for f in fits]
        rows.add_row(result.way.name, *cells, "lossless" if result.way.lossless else "biased")
        if not report.is_as_expected(result):
            rows.add_row("[bold]  not as it must be[/]")
    parts: list[RenderableType] = [f"[bold]{TITLE}[/]\n", rows, _units(report), "\n" + _closing(report)]
    return Group(*parts)


def document(report: Report) -> dict[str, Any]:
    """What JSON shows."""
    results = [asdict(result) | {"as_expected": report.is_as_expected(result)} for result in report.results]
    return asdict(report) | {"results": results, "holds": report.holds}


def _variation(fit: Fit, level: float) -> str:
    return f"{100 * fit.variation:.2f} ({100 * fit.variation_limit(level):.2f})"


def _probability(p: float) -> str:
    # Below this it underflows.
    return f"{p:.2g}" if p > 1e-300 else "< 1e-300"


def _units(report: Report) -> str:
    return (
        f"{report.settings.batches:,} batches of several requests for each way, seed {report.settings.seed}. each: the "
        "tokens of each request. joint: the first tokens of several requests of a batch together. p: of Pearson's "
        "chi-square. variation: total variation between frequencies and law, with what sampling noise may make of it. "
        f"A way fits if p is above {report.level:.2g} and the variation within its limit: {LEVEL:.1%} for all tests "
        f"together. The biased way must have p below {REJECTED:g}."
    )


def _closing(report: Report) -> str:
    steps = sum(result.way.length for result in report.results) * report.settings.batches
    speed = f"{steps:,} steps of a batch in {report.seconds:.0f} s."
    return f"{speed} [bold]{'As it must be.' if report.holds else 'NOT as it must be.'}[/]"
