"""Measurements of the live decoder, for a terminal of 100 columns."""

from __future__ import annotations

from collections.abc import Sequence

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from tetris_decode.live import Difference, Measurement
from tetris_decode.prompts import Prompt

HEADERS = (
    "policy",
    "tokens/s",
    "relative",
    "tokens per\nverification",
    "ms per\nstep",
    "drafts\nverified",
    "drafts\naccepted",
    "VSR %",
    "time %\ndrafting",
    "time %\nselecting",
)
UNITS = (
    "tokens/s: generated tokens by the time of all decoding steps, all requests together, the median of the runs; "
    "reading the prompts is not in it. A verification is one request in one step of the target. ms per step: the "
    "median. VSR: accepted / verified drafts."
)
ANSWERS = 2
ANSWER_LINES = 3


def tables(
    measurements: Sequence[Measurement],
    prompts: Sequence[Prompt],
    answers: Sequence[Sequence[str]],
    setting: str,
    machine: str,
) -> Group:
    """The policies, whether they agree, and the beginning of two answers; `answers` of each policy and request."""
    parts: list[RenderableType] = [f"[bold]{escape(setting)}[/]", _policies(measurements), UNITS, ""]
    parts += [_agreement(m, measurements[0], len(prompts)) for m in measurements[1:]]
    parts += [f"\n{escape(machine)}"]
    for i in range(min(ANSWERS, len(prompts))):
        lines = [line for line in answers[-1][i].splitlines() if line.strip()][:ANSWER_LINES]
        parts += [f"\n[bold]{escape(prompts[i].name)}[/], {measurements[-1].name}:", *map(escape, lines)]
    return Group(*parts)


def _policies(measurements: Sequence[Measurement]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for i, header in enumerate(HEADERS):
        table.add_column(header, justify="right" if i else "left")
    for m in measurements:
        relative = m.tokens_per_second / measurements[0].tokens_per_second
        rate = f"{100 * m.accepted / m.verified:.1f}" if m.verified else "-"
        table.add_row(
            m.name,
            f"{m.tokens_per_second:.1f}",
            f"{relative:.2f}x",
            f"{m.tokens_per_verification:.2f}",
            f"{1e3 * m.step_seconds:.0f}",
            f"{m.verified:,}",
            f"{m.accepted:,}",
            rate,
            f"{100 * m.draft_share:.1f}",
            f"{100 * m.select_share:.2f}",
        )
    return table


def _agreement(measurement: Measurement, plain: Measurement, num_requests: int) -> str:
    """Whether the texts are those of plain decoding, and if not, how close a call it was."""
    different = measurement.differences
    same = f"{measurement.name}: {num_requests - len(different)} of {num_requests} texts equal those of {plain.name}"
    return f"{same}{'; ' if different else '.'}{'; '.join(map(_close_call, different))}"


def _close_call(difference: Difference) -> str:
    return (
        f"request {difference.request} differs from token {difference.token} on, where the target's two logits are "
        f"{abs(difference.logit_gap):.3g} apart at {difference.logit:.3g}"
    )
