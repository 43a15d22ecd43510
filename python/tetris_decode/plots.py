"""Pictures of `plot_data`, as PNG: for a page about 800 pixels wide, in colours that colour-blind people tell apart."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from tetris_decode.plot_data import Allocation, BudgetCurves, Measured, Point, Reliability, Throughputs
from tetris_kernels import CostTable

WIDTH, DPI = 8.0, 200
# Okabe and Ito.
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#666666"
STYLE: Any = {
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.labelsize": 9,
    "figure.labelsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#999999",
    "axes.axisbelow": True,
    "xtick.color": "#333333",
    "ytick.color": "#333333",
    "grid.color": "#e6e6e6",
}


def save(draw: Callable[[], Figure], path: Path) -> None:
    """Draw in this module's style, and write a PNG."""
    with rc_context(STYLE):
        draw().savefig(path, format="png", dpi=DPI)


def _colour(policy: str) -> str:
    families = {"TETRIS": BLUE, "fixed": ORANGE, "DSD": PURPLE, "threshold": GREEN, "adaptive": RED}
    return next((colour for family, colour in families.items() if policy.startswith(family)), GREY)


def _figure(height: float, title: str) -> Figure:
    figure = Figure((WIDTH, height), layout="constrained")
    figure.suptitle(title, x=0.01, ha="left", fontsize=10, fontweight="bold")
    return figure


def _grid(count: int) -> tuple[int, int]:
    """Rows and columns of small multiples."""
    columns = count if count <= 3 else 2 if count == 4 else 3
    return -(-count // columns), columns


def _panels(figure: Figure, count: int) -> list[Axes]:
    """Small multiples that share their axes."""
    rows, columns = _grid(count)
    axes: list[Axes] = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).ravel().tolist()
    for unused in axes[count:]:
        unused.remove()
    for lowest in axes[max(count - columns, 0) : count]:
        lowest.tick_params(labelbottom=True)
    return axes[:count]


def _models(runs: Sequence[BudgetCurves | Reliability]) -> str:
    return ", ".join(dict.fromkeys(run.model for run in runs))


def throughput(data: Throughputs) -> Figure:
    """A row for each policy, a column for each batch size; greedy filled, sampled hollow."""
    figure = _figure(1.3 + 0.27 * len(data.policies), "Throughput relative to no speculation (median, 95 % interval)")
    axes = figure.subplots(1, len(data.batch_sizes), sharey=True, squeeze=False)[0]
    places = {policy: -i for i, policy in enumerate(data.policies)}
    offsets = np.linspace(0.15, -0.15, len(data.temperatures)) if len(data.temperatures) > 1 else [0.0]
    for ax, size in zip(axes, data.batch_sizes, strict=True):
        ax.axvline(1, color=GREY, linewidth=1)
        ax.grid(axis="x")
        for row in (row for row in data.rows if row.batch_size == size):
            at = data.temperatures.index(row.temperature)
            _interval(ax, row, places[row.policy] + offsets[at], filled=at == 0)
        ax.set_title(f"{size} request{'s' if size > 1 else ''}", loc="left")
        ax.tick_params(axis="y", length=0)
        ax.spines["left"].set_visible(False)
    axes[0].set_yticks(list(places.values()), list(places))
    for label in axes[0].get_yticklabels():
        label.set_color(_text_colour(label.get_text()))
    times = "times the throughput of no speculation with as many requests at a time"
    figure.supxlabel(f"{times}\n{_temperatures(data.temperatures)}{data.machine}", fontsize=8)
    return figure


def _temperatures(temperatures: Sequence[float]) -> str:
    names = [f"temperature {t:g}" if t else "greedy" for t in temperatures]
    return f"filled: {names[0]}, hollow: {', '.join(names[1:])}; " if names[1:] else f"{names[0]}; "


def _text_colour(policy: str) -> str:
    # Orange is too light for letters.
    return {ORANGE: "#9a6a00"}.get(_colour(policy), _colour(policy))


def _interval(ax: Axes, row: Measured, y: float, *, filled: bool) -> None:
    colour = _colour(row.policy)
    ax.plot([row.low, row.high], [y, y], color=colour, linewidth=1.5)
    ax.plot(row.median, y, "o", markersize=5, color=colour, markerfacecolor=colour if filled else "white")


def budget(curves: Sequence[BudgetCurves]) -> Figure:
    """A panel for each run: TETRIS and the oracle as lines, fixed lengths as numbered points."""
    rows, size = _grid(len(curves))[0], curves[0].batch_size
    figure = _figure(
        0.8 + 2.4 * rows, f"What a budget of drafts buys: {_models(curves)}, {size} requests at a time, replayed"
    )
    axes = _panels(figure, len(curves))
    for ax, of in zip(axes, curves, strict=True):
        ax.plot(*_xy(of.oracle), color=GREY, linestyle="--", linewidth=1.3, label="oracle: true acceptance")
        ax.plot(*_xy(of.tetris), color=BLUE, linewidth=2, label=f"TETRIS, of {of.length} drafts")
        ax.plot(*_xy(of.fixed), "o", color=ORANGE, markersize=5, label=f"fixed k = 1 to {len(of.fixed)}")
        for point in of.fixed[:4]:
            ax.annotate(point.label, point[:2], (0, -11), textcoords="offset points", ha="center", fontsize=7.5)
        ax.set_title(of.run, loc="left")
        ax.grid()
    # Shared by all panels, so that it waits for the last of them.
    axes[0].set_xlim(left=0)
    axes[0].set_ylim(bottom=1)
    axes[0].legend(frameon=False, loc="lower right", fontsize=8, handlelength=1.5)
    figure.supxlabel("drafts verified per request and step")
    figure.supylabel("tokens per verification")
    return figure


def costs(table: CostTable) -> Figure:
    """Seconds of a verification by its tokens, and of drafting by its length."""
    figure = _figure(3.2, f"What a step costs: {table.key.get('model', 'a model')}")
    figure.supxlabel(table.key.get("device", ""), fontsize=8)
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    milliseconds = [1e3 * seconds for seconds in table.seconds]
    style = {"drawstyle": "steps-pre"} if table.staircase else {}
    left.plot(table.tokens, milliseconds, "o-", color=BLUE, linewidth=1.5, markersize=4.5, **style)
    left.set_ylim(bottom=0)
    left.set_xlabel("tokens in a verification")
    left.set_ylabel("ms, all but drafting")
    right.bar(range(len(table.draft_seconds)), [1e3 * seconds for seconds in table.draft_seconds], color=ORANGE)
    right.set_xlabel("drafts made for each request")
    right.set_ylabel("ms")
    for ax in (left, right):
        ax.grid(axis="y")
    return figure


def _xy(points: Sequence[Point]) -> tuple[list[float], list[float]]:
    return [point.verified for point in points], [point.tokens for point in points]


def reliability(runs: Sequence[Reliability], calibrated: Sequence[Reliability] = ()) -> Figure:
    """Observed against estimated survival, and below how many drafts have it.

    calibrated: of the same runs with other scores, if there are any.
    """
    figure = _figure(3.8, f"Do drafts survive as often as their scores say? {_models(runs)}")
    axes = figure.subplots(2, len(runs), sharex=True, sharey="row", squeeze=False, height_ratios=(3, 1))
    for (ax, below), of in zip(axes.T, runs, strict=True):
        ax.plot([0, 1], [0, 1], color=GREY, linewidth=1, linestyle="--")
        ax.plot(of.estimated, of.observed, "o-", color=BLUE, linewidth=1, markersize=4.5)
        after = next((other for other in calibrated if other.run == of.run), None)
        if after:
            ax.plot(after.estimated, after.observed, "s-", color=ORANGE, linewidth=1, markersize=4, label="calibrated")
        gap = f"{of.error:.2f} → {after.error:.2f}" if after else f"{of.error:.2f}"
        ax.set_title(f"{of.run}\nmean gap {gap}", loc="left")
        ax.set_xlim(0, 1)
        ax.set_ylim(0, 1)
        ax.grid()
        below.bar(of.estimated, of.counts, width=0.07, color=BLUE, alpha=0.6)
        below.set_xticks([0, 0.5, 1], ["0", "0.5", "1"])
        below.yaxis.set_major_formatter("{x:,.0f}")
        below.grid(axis="y")
    line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.7}
    axes[0, 0].annotate(
        "as estimated", (0.75, 0.75), (0.75, 0.05), color=GREY, fontsize=8, ha="center", arrowprops=line
    )
    if calibrated:
        axes[0, 0].legend(frameon=False, loc="upper left", fontsize=8)
    axes[0, 0].set_ylabel("observed survival")
    axes[1, 0].set_ylabel("drafts")
    figure.supxlabel(
        "estimated survival: product of the drafter's probabilities up to the draft"
        + (", and of calibrated ones" if calibrated else "")
    )
    return figure


def allocation(data: Allocation, means: tuple[float, float], texts: Sequence[Sequence[str]] | None = None) -> Figure:
    """Requests x positions under both policies.

    means: accepted drafts in all steps, as `mean_accepted` says. texts: [N][L] of the tokens, if they are known.
    """
    count, length = data.ids.shape
    budget = int(data.fixed.sum())
    figure = _figure(1.4 + 0.3 * count, f"One step of {data.model}: {budget} drafts to verify for {count} requests")
    axes = figure.subplots(1, 2, sharey=True)
    policies = (f"fixed k = {data.fixed[0]}", data.fixed), ("TETRIS", data.tetris)
    for ax, (name, lens), mean in zip(axes, policies, means, strict=True):
        for row in range(count):
            for position in range(length):
                _cell(ax, data, row, position, int(lens[row]), texts[row][position] if texts else "")
        ax.set_title(
            f"{name}: {data.num_accepted(lens)} accepted (mean step: {mean:.1f})", loc="left", color=_text_colour(name)
        )
        ax.set_xlim(0, length)
        ax.set_ylim(count, 0)
        ax.set_xticks(np.arange(length) + 0.5, [str(i + 1) for i in range(length)])
        ax.set_yticks(
            np.arange(count) + 0.5, [_shortened(name.partition(" ")[0], 18) for name in data.prompts], fontsize=7.5
        )
        ax.tick_params(length=0)
        for spine in ax.spines.values():
            spine.set_visible(False)
    figure.supxlabel(
        f"position of the draft, after {data.step} generated tokens of each request, {data.run}\n"
        "the darker, the higher the estimated survival; framed: verified\n"
        "✓ accepted   ✗ rejected   – verified behind a rejection   ○ not verified, would have been accepted",
        fontsize=8,
    )
    return figure


def _cell(ax: Axes, data: Allocation, row: int, position: int, verified: int, text: str) -> None:
    survival, accepted = data.survival[row, position], data.accepted[row]
    shade = 1 - 0.6 * survival * (1 - np.array(to_rgb(BLUE)))
    ax.add_patch(Rectangle((position, row), 1, 1, facecolor=tuple(shade), edgecolor="white"))
    mark, colour = _mark(accepted, position, verified)
    if position < verified:
        ax.add_patch(Rectangle((position + 0.04, row + 0.06), 0.92, 0.88, fill=False, edgecolor=colour, linewidth=1.6))
    ax.text(position + 0.95, row + 0.5, f"{mark} ", color=colour, ha="right", va="center", fontsize=8)
    ax.text(position + 0.09, row + 0.5, _shortened(text, 6), ha="left", va="center", fontsize=6.3)


def _shortened(text: str, length: int) -> str:
    """In one line of at most `length` letters, and no dollar sign, which would begin a formula."""
    line = text.strip(" ").replace("\n", "↵")
    return (line if len(line) <= length else f"{line[: length - 1]}…").replace("$", r"\$")


def _mark(accepted: NDArray[np.bool_], position: int, verified: int) -> tuple[str, str]:
    """What became of a draft, and its colour; `accepted` [L] of its request, with all before each."""
    if position >= verified:
        return ("○", GREY) if accepted[position] else ("", GREY)
    if accepted[position]:
        return "✓", "#006b4f"
    first_rejection = position == 0 or accepted[position - 1]
    return ("✗", RED) if first_rejection else ("–", RED)
