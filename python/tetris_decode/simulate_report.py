"""The simulated comparison, and Theorem 2, as tables for a terminal of 100 columns and as JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table

from tetris_decode.findings import findings
from tetris_decode.optimality import OBJECTIVES, READINGS, Loss
from tetris_decode.optimality import Setting as Instance
from tetris_decode.paper import (
    CONTRASTS,
    DSD,
    EXTRA,
    FIXED,
    LENGTHS,
    ORACLE,
    PLAIN,
    TETRIS,
    THRESHOLD,
    Point,
    Setting,
)
from tetris_decode.traces import Run
from tetris_kernels import CostTable

HEADERS = (
    "policy",
    "tokens/s",
    "relative",
    "tokens per\nverification",
    "VSR %",
    "TER %",
    "drafting\ntime %",
    "ms/token\nmean",
    "ms/token\np99",
    "latency s\nmean",
)
UNITS = (
    "Each policy at its parameters of the highest throughput here. relative: to no speculation. A verification is one "
    "request in one step. VSR: accepted / verified drafts. TER: tokens / (verified drafts + 1 a verification). "
    "ms/token: of a request after its first token, mean and 99th percentile. latency: from the start of all requests "
    "to a request's last token. oracle: knows acceptance probabilities, an upper bound of what selection can do. "
    "Reading prompts and selecting take no time here."
)
INTERVALS = (
    "In brackets: two standard errors, of bootstrap samples of the recorded requests, which both policies replay. "
    "Parameters are chosen with hindsight, for the baselines too."
)
APPROXIMATE = "Drafts of {} were drawn: there the replay goes on along the recorded text, an approximation."
THEOREM = (
    "Theorem 2: does the best selection of each step (TETRIS, with the true acceptance rates) lose anything against "
    "the best of all policies, which dynamic programming finds? {instances} random instances for each reading of what "
    "drafts at one position share: {n} requests, {k} drafts each, {c} verified in a step; tokens of {h} steps, or "
    "steps until {n} texts of {length} tokens have ended. Rates are uniform on 0..1; requests begin up to {k} tokens "
    "apart."
)


def tables(settings: Sequence[Setting], runs: Sequence[Run], about: str, systems: Mapping[str, str]) -> Group:
    """What each policy comes to, gains at each k, and whether the paper's conclusions hold; `systems` described."""
    parts: list[RenderableType] = [f"[bold]{about}[/]"]
    parts += [f"[bold]{name}[/]: {description}" for name, description in systems.items()]
    for setting in settings:
        parts += [f"\n[bold]{setting.name}[/]", _policies(setting)]
    parts += [UNITS, "\nThroughput of TETRIS over the fixed k of the same k, %:", _gains(settings)]
    parts += [
        "The paper's conclusions (from its abstract and notes on it), and these simulations:",
        _findings(settings),
    ]
    parts += [INTERVALS]
    drawn = ", ".join(run.name for run in runs if run.drawn)
    return Group(*parts, APPROXIMATE.format(drawn)) if drawn else Group(*parts)


def document(settings: Sequence[Setting], runs: Sequence[Run], costs: Sequence[CostTable]) -> dict[str, Any]:
    """All of it, for JSON."""
    return {
        "runs": {run.name: {"drawn": run.drawn, **run.about} for run in runs},
        "costs": [asdict(table) for table in costs],
        "contrasts": CONTRASTS,
        "settings": [asdict(setting) for setting in settings],
        "findings": [asdict(finding) for finding in findings(settings)],
    }


def theorem(losses: Sequence[Loss], instance: Instance) -> Group:
    """What greedy loses, by reading and objective, and what that says of the theorem."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for i, header in enumerate(
        ("the rate depends on", "objective", "instances\nwith a loss", "mean\nloss %", "worst\nloss %")
    ):
        table.add_column(header, justify="right" if i > 1 else "left")
    for x in losses:
        cells = f"{x.with_loss} of {x.instances}", f"{x.mean:.2f}", f"{x.worst:.2f}"
        table.add_row(READINGS[x.reading], OBJECTIVES[x.objective], *cells)
    text = THEOREM.format(
        instances=losses[0].instances,
        n=instance.num_requests,
        k=instance.num_drafts,
        c=instance.capacity,
        h=instance.horizon,
        length=instance.length,
    )
    return Group(f"[bold]{text}[/]", table, _conclusion(losses))


def _conclusion(losses: Sequence[Loss]) -> str:
    parts = []
    for objective, meaning in OBJECTIVES.items():
        of = [x for x in losses if x.objective == objective]
        optimal = "; ".join(READINGS[x.reading] for x in of if not x.with_loss) or "none of these"
        worse = "; ".join(f"{READINGS[x.reading]} ({x.worst:.1f} %)" for x in of if x.with_loss) or "none of these"
        parts.append(
            f"By {meaning}, greedy was optimal in every instance where the rate depends on: {optimal}. "
            f"It was not, with the worst loss in brackets, on: {worse}."
        )
    return "\n".join(parts)


def _policies(setting: Setting) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    for i, header in enumerate(HEADERS):
        table.add_column(header, justify="right" if i else "left")
    best = [setting.best(kind) for kind in (PLAIN, FIXED, DSD, THRESHOLD)]
    best += [setting.best(TETRIS, e=e) for e in EXTRA]
    plain = best[0].metrics.throughput
    for point in [*best, setting.best(ORACLE)]:
        table.add_row(*_row(point, plain))
    return table


def _row(point: Point, plain: float) -> tuple[str, ...]:
    m = point.metrics
    per_token, per_token_p99 = m.time_per_output_token, m.time_per_output_token_p99
    return (
        point.choice.name,
        f"{m.throughput:,.0f}",
        f"{m.throughput / plain:.3f}x",
        f"{m.tokens_per_verification:.2f}",
        "-" if m.success_rate is None else f"{100 * m.success_rate:.1f}",
        f"{100 * m.target_efficiency:.1f}",
        f"{100 * m.draft_share:.1f}",
        "-" if per_token is None else f"{1e3 * per_token:.1f}",
        "-" if per_token_p99 is None else f"{1e3 * per_token_p99:.1f}",
        f"{m.latency:.2f}",
    )


def _gains(settings: Sequence[Setting]) -> Table:
    """A row for each setting and e, a column for each k."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for header in ("run", "costs", "requests", "e", *(f"k = {k}" for k in LENGTHS)):
        table.add_column(header, justify="left" if header in ("run", "costs") else "right")
    for setting in settings:
        for e in EXTRA:
            cells = [_gain(setting.at(TETRIS, k, e), setting.at(FIXED, k)) for k in LENGTHS]
            table.add_row(setting.run, setting.system, str(setting.batch_size), str(e), *cells)
    return table


def _gain(of: Point | None, over: Point | None) -> str:
    if of is None or over is None:
        return "-"
    return f"{100 * (of.metrics.throughput / over.metrics.throughput - 1):+.1f}"


def _findings(settings: Sequence[Setting]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False)
    for header in ("the paper", "here", "agrees"):
        table.add_column(header, ratio=None if header == "agrees" else 1)
    for finding in findings(settings):
        table.add_row(finding.claim, finding.here, finding.agrees)
    return table
