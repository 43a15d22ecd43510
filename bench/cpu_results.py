"""From what pytest-benchmark measured to a table, a CSV file and a JSON file."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from statistics import median
from typing import Any

from bench import inputs
from bench.environment import environment
from bench.peers.catalogue import OURS

FOLDER = Path(__file__).parent / "results"
OWN = OURS[0].name
VLLM, RADIX = "cumprod + topk, eager", "C++ radix"


@dataclass(frozen=True)
class Cell:
    """One peer on one input."""

    requests: int
    drafts: int
    kind: str
    fraction: float
    budget: int
    seed: int
    peer: str
    microseconds: float  # median of the rounds of the quietest turn: what else runs here only adds
    typical: float  # the same of the middle turn
    to_ours: float  # `microseconds` over those of this library
    rows_differ: int  # rows whose length is not the oracle's; only floats may differ, and only at ties
    excess: int  # drafts kept beyond the budget

    @property
    def shape(self) -> tuple[int, int]:
        return self.requests, self.drafts


def cells(measured: Sequence[dict[str, Any]]) -> list[Cell]:
    """Joins the turns of each peer and input."""
    turns: dict[str, list[dict[str, Any]]] = {}
    for one in measured:
        turns.setdefault(json.dumps(one["extra_info"]), []).append(one["stats"])
    times = {key: sorted(stats["median"] * 1e6 for stats in some) for key, some in turns.items()}
    infos = {key: json.loads(key) for key in turns}
    ours = {_input(info): times[key] for key, info in infos.items() if info["peer"] == OWN}
    return [
        Cell(
            **info,
            microseconds=round(times[key][0], 2),
            typical=round(median(times[key]), 2),
            to_ours=round(times[key][0] / ours[_input(info)][0], 3),
        )
        for key, info in infos.items()
    ]


def _input(info: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(info[name] for name in ("requests", "drafts", "kind", "fraction"))


def write(name: str, rows: Sequence[Cell]) -> None:
    """`name`.csv has every cell, `name`.json the environment and each size's medians."""
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / f"{name}.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Cell)], lineterminator="\n")
        writer.writeheader()
        writer.writerows(map(asdict, rows))
    summary = {
        f"{shape[0]}x{shape[1]}": {peer: round(median(c.microseconds for c in some), 2) for peer, some in by_peer}
        for shape, of_shape in _grouped(rows, lambda c: c.shape)
        for by_peer in [_grouped(of_shape, lambda c: c.peer)]
    }
    document = {"environment": environment(), "median microseconds over kinds and budgets": summary}
    (FOLDER / f"{name}.json").write_text(json.dumps(document, indent=1) + "\n")


def _grouped(rows: Sequence[Cell], key: Callable[[Cell], Any]) -> list[tuple[Any, list[Cell]]]:
    groups: dict[Any, list[Cell]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return list(groups.items())


def table(rows: Sequence[Cell]) -> str:
    """A block for each size: microseconds at a budget of 50 %, and what the other budgets add to the picture."""
    lines = [f"{name}: {value}" for name, value in environment().items()]
    lines += [
        "",
        "Microseconds a call, one thread, medians of the quietest turn, budget 50 %; last columns: all budgets:",
    ]
    for (requests, drafts), of_shape in _grouped(rows, lambda c: c.shape):
        head = "".join(f"{kind:>14}" for kind in inputs.KINDS)
        lines += ["", f"{f'{requests} x {drafts}':28}{head}   time / ours    rows differ, excess"]
        for peer, some in _grouped(of_shape, lambda c: c.peer):
            half = {c.kind: c.microseconds for c in some if c.fraction == 0.5}
            ratios = [c.to_ours for c in some]
            times = "".join(f"{half[kind]:14.1f}" for kind in inputs.KINDS)
            span = f"{min(ratios):7.2f} -{max(ratios):6.2f}"
            differ, excess = max(c.rows_differ for c in some), max(c.excess for c in some)
            lines.append(f"{peer:28}{times} {span}" + (f"    up to {differ}, {excess:+d}" if differ else ""))
    return "\n".join([*lines, "", *aims(rows)])


def aims(rows: Sequence[Cell]) -> list[str]:
    """How far the torch backend is from what it is meant to reach on the CPU."""
    vllm = [c for c in rows if c.peer == VLLM]
    lines = []
    for shape, some in _grouped(vllm, lambda c: c.shape):
        wins = sum(c.to_ours > 1 for c in some)
        worst = min(some, key=lambda c: c.to_ours)
        lines.append(
            f"{shape[0]} x {shape[1]}: ours is faster than {VLLM} on {wins} of {len(some)} inputs; median ratio "
            f"{median(c.to_ours for c in some):.2f}, lowest {worst.to_ours:.2f} ({worst.kind} {worst.fraction:.0%})"
        )
    for shape, some in _grouped([c for c in rows if c.peer == RADIX], lambda c: c.shape):
        if shape[0] * shape[1] >= 1024 * 16:
            ratios = [1 / c.to_ours for c in some]
            lines.append(
                f"{shape[0]} x {shape[1]}: ours takes {median(ratios):.2f} times the {RADIX}, at most {max(ratios):.2f}"
            )
    return lines
