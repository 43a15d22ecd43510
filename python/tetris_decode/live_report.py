"""Measurements of the live decoder, for a terminal of 100 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from tetris_decode.live import Difference, Measurement
from tetris_decode.metrics import Metrics

HEADERS = (
    "policy",
    "tokens/s",
    "relative",
    "tokens per\nverification",
    "drafts\nverified",
    "VSR %",
    "TER %",
    "ms per\nstep",
    "ms per token\nmean (p99)",
    "latency, s\nmean (p99)",
)
UNITS = (
    "tokens/s: generated tokens by the time of all decoding steps, all requests together; reading the prompts is not "
    "in it. A verification is one request in one step of the target. VSR: accepted / verified drafts. TER: tokens / "
    "positions that the target computed. ms per step: the median. ms per token: of a request, after its first. "
    "latency: until a request's last token, all having arrived at the start."
)
ANSWERS = 2
ANSWER_LINES = 3


def tables(
    measurements: Sequence[Measurement],
    names: Sequence[str],
    answers: Sequence[str],
    setting: str,
    machine: str,
) -> Group:
    """The policies, whether they agree, and the beginning of two answers.

    names: of the prompts. answers: of the last policy to each.
    """
    parts: list[RenderableType] = [f"[bold]{escape(setting)}[/]", _policies(measurements), UNITS, ""]
    parts += [f"{m.name}: {_shares(m.metrics)}; {_agreement(m, measurements[0])}" for m in measurements[1:]]
    parts += [f"\n{escape(machine)}"]
    for name, answer in list(zip(names, answers, strict=True))[:ANSWERS]:
        lines = [line for line in answer.splitlines() if line.strip()][:ANSWER_LINES]
        parts += [f"\n[bold]{escape(name)}[/], {measurements[-1].name}:", *map(escape, lines)]
    return Group(*parts)


def _policies(measurements: Sequence[Measurement]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for i, header in enumerate(HEADERS):
        table.add_column(header, justify="right" if i else "left")
    for m in measurements:
        table.add_row(m.name, *_cells(m.metrics, measurements[0].metrics))
    return table


def _cells(metrics: Metrics, plain: Metrics) -> tuple[str, ...]:
    return (
        f"{metrics.throughput:.1f}",
        f"{metrics.throughput / plain.throughput:.2f}x" if plain.throughput else "-",
        f"{metrics.tokens_per_verification:.2f}",
        f"{metrics.verified:,}",
        "-" if metrics.success_rate is None else f"{100 * metrics.success_rate:.1f}",
        f"{100 * metrics.target_efficiency:.1f}",
        f"{1e3 * metrics.step_seconds:.0f}",
        _mean_and_p99(metrics.time_per_output_token, metrics.time_per_output_token_p99, 1e3, 0),
        _mean_and_p99(metrics.latency, metrics.latency_p99, 1, 1),
    )


def _mean_and_p99(mean: float | None, p99: float | None, scale: float, decimals: int) -> str:
    if mean is None or p99 is None:
        return "-"
    return f"{scale * mean:.{decimals}f} ({scale * p99:.{decimals}f})"


def _shares(metrics: Metrics) -> str:
    return f"{100 * metrics.draft_share:.1f} % of the time drafting, {100 * metrics.select_share:.2f} % selecting"


def _agreement(measurement: Measurement, plain: Measurement) -> str:
    """Whether the texts are those of plain decoding, and if not, how close a call it was."""
    different = measurement.differences
    if different is None:
        return "texts are sampled, so they differ."
    count = len(plain.outputs)
    same = f"{count - len(different)} of {count} texts equal those of {plain.name}"
    return f"{same}{'; ' if different else '.'}{'; '.join(map(_close_call, different))}"


def _close_call(difference: Difference) -> str:
    return (
        f"request {difference.request} differs from token {difference.token} on, where the target's two logits are "
        f"{abs(difference.logit_gap):.3g} apart at {difference.logit:.3g}"
    )
