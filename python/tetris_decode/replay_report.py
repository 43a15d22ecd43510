"""Comparisons as tables for a terminal of 100 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from tetris_decode.replay import Comparison, Gain, Metrics
from tetris_decode.traces import DRAFTERS, NUM_DRAFTS, SOURCE

TITLE = (
    "Which drafts of a batch to verify? With the same number of drafts verified in every step, fixed k takes "
    "the first k of each request, TETRIS those of the batch that are most likely to survive."
)
HEADERS = (
    "drafts verified\nper request",
    "accepted\nfixed k",
    "accepted\nTETRIS",
    "tokens\nfixed k",
    "tokens\nTETRIS",
    "VSR %\nfixed k",
    "VSR %\nTETRIS",
    "gain in accepted\n% (interval)",
    "gain in\ntokens %",
)
UNITS = (
    "accepted: accepted drafts per verification (one request in one step). tokens: accepted + 1 bonus token. "
    "VSR: accepted / verified drafts. interval: 95 %, requests resampled. -: no fixed length spends this budget. "
    f"Runs are drafter@temperature; the drafters are {DRAFTERS}."
)


def tables(comparisons: Sequence[Comparison], extra: int) -> Group:
    """The policies at the largest batch size, then the gain by batch size if there is more than one."""
    sizes = sorted({c.batch_size for c in comparisons})
    largest = [c for c in comparisons if c.batch_size == sizes[-1]]
    with_gain = [c for c in comparisons if c.accepted_gain]
    parts: list[RenderableType] = [f"[bold]{TITLE}[/]\n", f"Batches of {sizes[-1]} requests:"]
    parts += [_policies(largest), UNITS]
    if len(sizes) > 1 and with_gain:
        budgets = " / ".join(dict.fromkeys(_budget(c) for c in with_gain))
        parts += [f"\nGain in accepted drafts (%) by batch size, at {budgets} verified per request:"]
        parts += [_by_batch_size(with_gain, sizes)]
    return Group(*parts, "\n" + _closing(largest, extra))


def _policies(comparisons: Sequence[Comparison]) -> Table:
    """A section for each run, a row for each budget."""
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for i, header in enumerate(HEADERS):
        table.add_column(header, justify="right" if i else "left")
    for run in dict.fromkeys(c.run for c in comparisons):
        table.add_row(run, style="bold")
        for c in comparisons:
            if c.run == run:
                pairs = zip(_metrics(c.fixed), _metrics(c.tetris), strict=True)
                cells = [cell for pair in pairs for cell in pair]
                table.add_row(f"  {_budget(c)}", *cells, *_gains(c.accepted_gain, c.tokens_gain))
    return table


def _by_batch_size(comparisons: Sequence[Comparison], sizes: Sequence[int]) -> Table:
    """A row for each run, a column for each batch size; in a cell the gains of all budgets."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    table.add_column("run")
    for size in sizes:
        table.add_column(f"{size} requests", justify="right")
    for run in dict.fromkeys(c.run for c in comparisons):
        of_run = [c for c in comparisons if c.run == run]
        table.add_row(run, *(" / ".join(_percent(c) for c in of_run if c.batch_size == size) for size in sizes))
    return table


def _budget(comparison: Comparison) -> str:
    return f"{comparison.drafts_per_request:g}"


def _percent(comparison: Comparison) -> str:
    return f"{comparison.accepted_gain.percent:+.0f}" if comparison.accepted_gain else "-"


def _metrics(metrics: Metrics | None) -> tuple[str, str, str]:
    if metrics is None:
        return "-", "-", "-"
    return (
        f"{metrics.accepted_per_verification:.2f}",
        f"{metrics.tokens_per_verification:.2f}",
        f"{100 * metrics.success_rate:.1f}",
    )


def _gains(accepted: Gain | None, tokens: Gain | None) -> tuple[str, str]:
    if accepted is None or tokens is None:
        return "-", "-"
    return f"{accepted.percent:+.1f} ({accepted.low:.0f} to {accepted.high:.0f})", f"{tokens.percent:+.1f}"


def _closing(comparisons: Sequence[Comparison], extra: int) -> str:
    verifications = sum({c.run: c.steps * c.batch_size for c in comparisons}.values())
    return (
        f"Measured: acceptance of recorded drafts of {SOURCE}, {verifications:,} verifications in all, the same "
        f"ones under both policies; TETRIS chose among the first k + {extra} drafts of each, at most the "
        f"{NUM_DRAFTS} recorded. Nothing was timed, and the cost of drafting more than k is not counted."
    )
