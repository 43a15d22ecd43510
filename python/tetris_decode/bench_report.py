"""Throughput of policies as tables for a terminal of 140 columns, and as a document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table

from tetris_decode.bench import Ratio, Row
from tetris_decode.bench_suite import ADAPTIVE_NAME, Case, Settings
from tetris_decode.policies import Policy, Tetris

HEADERS = (
    "policy",
    "tokens/s",
    "to no speculation\n(95 % interval)",
    "to best k of 1, 2, 3\n(95 % interval)",
    "tokens per\nverification",
    "VSR\n%",
    "TER\n%",
    "ms per\nstep",
    "ms per token\nmean",
    "\np99",
    "drafting\ntime %",
    "selecting\ntime %",
)
UNITS = (
    "tokens/s: generated tokens by the time of the steps, the whole batch; the target's reading of prompts is not "
    "in it (a drafting model's is). Ratios are of throughputs of neighbouring blocks of time, their medians; "
    "intervals are over blocks, not over other prompts. The best fixed k is the one of the highest ratio to no "
    "speculation here, in hindsight. VSR: accepted / verified drafts. TER: tokens / (verified drafts + "
    "verifications). ms per token: of requests that ended, reading others' prompts included. TETRIS b: b drafts "
    "verified per request on average. Planned: on recordings of these prompts and the costs measured before. "
    "Adaptive: a budget by these costs and what the drafts of the last steps promised by their scores, by calibrated "
    "scores, or the drafts of the step itself."
)


def document(cases: Sequence[Case], settings: Settings, about: dict[str, Any]) -> dict[str, Any]:
    """What was measured, for a machine."""
    return {
        **about,
        "settings": asdict(settings),
        "rows": [_document(row) for case in cases for row in case.rows],
        "costs": [
            {"batch_size": case.rows[0].batch_size, "temperature": case.rows[0].temperature}
            | {"planned": case.planned and _plan(case.planned)}
            | asdict(case.costs)
            for case in cases
        ],
    }


def _document(row: Row) -> dict[str, Any]:
    """asdict leaves named tuples as they are, and JSON would make lists of them."""
    ratios = {name: getattr(row, name) for name in ("relative", "to_fixed", "to_best", "to_chosen")}
    return asdict(row) | {name: ratio and ratio._asdict() for name, ratio in ratios.items()}


def tables(cases: Sequence[Case], about: str) -> Group:
    """One for each batch size and temperature."""
    parts: list[RenderableType] = [f"[bold]{escape(about)}[/]"]
    for case in cases:
        row = case.rows[0]
        sampled = f"temperature {row.temperature:g}" if row.temperature else "greedy"
        parts += [f"\n{row.batch_size} requests at a time, {sampled}:", _table(case.rows)]
        if case.planned is not None:
            parts.append(f"planned by the simulator: {_plan(case.planned)}")
        parts += [
            f"{r.policy}: {_cell(r.to_best)} of the best budget that is fixed, here {r.best_budget}; "
            f"{_cell(r.to_chosen)} of the best by the other half of the blocks"
            for r in case.rows
            if r.policy.startswith(ADAPTIVE_NAME)
        ]
        parts += [_agreement(r) for r in case.rows[1:] if r.equal_texts < r.texts]
    return Group(*parts, "", UNITS)


def _table(rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for i, header in enumerate(HEADERS):
        table.add_column(header, justify="right" if i else "left")
    for row in rows:
        m = row.metrics
        table.add_row(
            row.policy,
            f"{m.throughput:.1f}",
            _cell(row.relative),
            _cell(row.to_fixed),
            f"{m.tokens_per_verification:.2f}",
            "-" if m.success_rate is None else f"{100 * m.success_rate:.1f}",
            f"{100 * m.target_efficiency:.1f}",
            f"{1e3 * m.step_seconds:.0f}",
            _milliseconds(m.time_per_output_token),
            _milliseconds(m.time_per_output_token_p99),
            f"{100 * m.draft_share:.1f}",
            f"{100 * m.select_share:.2f}",
        )
    return table


def _plan(policy: Policy) -> str:
    if isinstance(policy, Tetris):
        return f"{policy.drafts_per_request:g} verified per request, of {policy.length} drafts"
    return "no speculation"


def _agreement(row: Row) -> str:
    return (
        f"{row.policy}: {row.equal_texts} of {row.texts} texts equal those of no speculation; where the others part, "
        f"the two logits are at most {row.largest_gap:.4f} of their size apart"
    )


def _cell(ratio: Ratio | None) -> str:
    return "-" if ratio is None else f"{ratio.median:.2f} ({ratio.low:.2f} to {ratio.high:.2f})"


def _milliseconds(seconds: float | None) -> str:
    return "-" if seconds is None else f"{1e3 * seconds:.0f}"
