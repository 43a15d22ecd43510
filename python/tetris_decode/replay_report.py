"""Comparisons as tables for a terminal of 100 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from tetris_decode.replay import Comparison, Gain, Outcome
from tetris_decode.traces import Run

TITLE = (
    "Which drafts of a batch to verify? With the same budget in every step, fixed k takes the first k of each request, "
    "TETRIS those of the batch that are most likely to survive."
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
    "accepted: accepted drafts per verification (one request in one step). tokens: those and 1 bonus token. "
    "VSR: accepted / verified drafts. interval: 95 %, requests resampled. -: no fixed length spends this budget. "
    "Runs are drafter@temperature."
)


def tables(comparisons: Sequence[Comparison], runs: Sequence[Run], extra: int) -> Group:
    """The policies at the largest batch size, then the gain by batch size if there is more than one; of `runs`."""
    sizes = sorted({c.batch_size for c in comparisons})
    largest = [c for c in comparisons if c.batch_size == sizes[-1]]
    with_gain = [c for c in comparisons if c.accepted_gain]
    parts: list[RenderableType] = [f"[bold]{TITLE}[/]\n", f"Batches of {sizes[-1]} requests:"]
    parts += [_policies(largest), UNITS]
    if len(sizes) > 1 and with_gain:
        budgets = " / ".join(dict.fromkeys(_budget(c) for c in with_gain))
        parts += [f"\nGain in accepted drafts (%) by batch size, at {budgets} verified per request:"]
        parts += [_by_batch_size(with_gain, sizes)]
    return Group(*parts, "\n" + _closing(largest, runs, extra))


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


def _metrics(metrics: Outcome | None) -> tuple[str, str, str]:
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


def _closing(comparisons: Sequence[Comparison], runs: Sequence[Run], extra: int) -> str:
    verifications = sum({c.run: c.verifications for c in comparisons}.values())
    models = ", ".join(dict.fromkeys(run.about.get("model", "an unnamed model") for run in runs))
    drawn = ", ".join(run.name for run in runs if run.drawn)
    closing = (
        f"Measured: acceptance of recorded drafts of {models} on {max(run.num_requests for run in runs)} prompts or "
        f"fewer. Both policies decode the same texts, TETRIS in {verifications:,} verifications in all; it chose among "
        f"the first k + {extra} drafts of each, at most the recorded ones. Nothing was timed, and the cost of drafting "
        "more than k is not counted."
    )
    return f"{closing} Drafts of {drawn} were drawn: there the replay is approximate." if drawn else closing
