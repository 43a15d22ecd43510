"""The TETRIS paper's comparison, simulated: fixed lengths, DSD and TETRIS of all k and e, and what follows from it.

Everything is computed from replayed traces and a cost table; `findings` compares it with what the paper says.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from tetris_decode.goodput import Dsd
from tetris_decode.metrics import Metrics
from tetris_decode.policies import NO_SPECULATION, FixedLength, Oracle, Policy, Tetris, Threshold
from tetris_decode.simulate import Replay, make_queue, simulate
from tetris_kernels import CostTable

LENGTHS = (1, 2, 3, 4, 5, 6)
EXTRA = (1, 2, 3)
CONFIDENCES = (0.3, 0.5, 0.7)
PLAIN, FIXED, DSD, THRESHOLD, TETRIS, ORACLE = "no speculation", "fixed k", "DSD", "threshold", "TETRIS", "oracle"


@dataclass(frozen=True)
class Choice:
    """A policy and its parameters. k, e, confidence: None where it has none."""

    kind: str
    k: int | None = None
    e: int | None = None
    confidence: float | None = None

    @property
    def name(self) -> str:
        values = {"k": self.k, "e": self.e, "p": self.confidence}
        shown = " ".join(f"{name}={value:g}" for name, value in values.items() if value is not None)
        return f"{self.kind.removesuffix(' k')} {shown}".strip()

    def make(self, costs: CostTable) -> Policy:
        """Fresh, for one run."""
        k, e = self.k or 0, self.e or 0
        match self.kind:
            case "fixed k":
                return FixedLength(k)
            case "DSD":
                return Dsd(costs, max(LENGTHS))
            case "threshold":
                return Threshold(self.confidence or 0.0, max(LENGTHS))
            case "TETRIS":
                return Tetris(k, k + e)
            case "oracle":
                return Oracle(k, k + e)
        return NO_SPECULATION


@dataclass(frozen=True)
class Point:
    """A policy and what it came to."""

    choice: Choice
    metrics: Metrics


@dataclass(frozen=True)
class Contrast:
    """What `of` gains over `over` in percent, with two standard errors by paired bootstrap over recorded requests."""

    of: Choice
    over: Choice
    percent: float
    low: float
    high: float


# Of which quantity, and of what over what. Each "best" is the one of the highest throughput here, with hindsight.
CONTRASTS = {
    "over_baseline": "throughput of the best TETRIS over the best of fixed k and DSD",
    "over_fixed": "throughput of the best TETRIS over the best fixed k",
    "over_same_k": "throughput of the TETRIS that gains most over the fixed k of its own k",
    "latency": "1 / mean latency of the best TETRIS over the best fixed k",
    "projected": "TER of the TETRIS that gains most of it over the fixed k of its own k",
    "dsd": "throughput of DSD over the best fixed k",
}


@dataclass(frozen=True)
class Setting:
    """One run in one batch size, by the costs of one system: all policies, and `CONTRASTS` of some."""

    run: str
    system: str
    batch_size: int
    points: tuple[Point, ...]
    contrasts: Mapping[str, Contrast]

    @property
    def name(self) -> str:
        return f"{self.run}, {self.system}, {self.batch_size} requests at a time"

    def best(self, *kinds: str, e: int | None = None) -> Point:
        """Of the highest throughput among policies of these kinds, of this e if given."""
        return _best(self.points, kinds, e)

    def at(self, kind: str, k: int, e: int | None = None) -> Point | None:
        """The policy of this kind with these parameters."""
        return next((p for p in self.points if p.choice == Choice(kind, k, e)), None)


def choices(num_drafts: int) -> list[Choice]:
    """All policies that drafts of this number allow."""
    pairs = [(k, e) for e in EXTRA for k in LENGTHS if k + e <= num_drafts]
    return [
        Choice(PLAIN),
        *(Choice(FIXED, k) for k in LENGTHS if k <= num_drafts),
        Choice(DSD),
        *(Choice(THRESHOLD, confidence=confidence) for confidence in CONFIDENCES),
        *(Choice(TETRIS, k, e) for k, e in pairs),
        *(Choice(ORACLE, k, e) for k, e in pairs),
    ]


def study(
    replay: Replay,
    costs: CostTable,
    *,
    system: str,
    batch_size: int,
    num_requests: int = 512,
    resamples: int = 20,
    seed: int = 0,
    on_simulation: Callable[[], None] | None = None,
) -> Setting:
    """Simulate all policies on one queue of requests, then the contrasts on resampled ones.

    Args:
        replay: the recorded drafts, `max(LENGTHS)` of each position or more.
        costs: of this batch size, with drafting of as many.
        system: what the costs are of, by name.
        batch_size: requests at a time.
        num_requests: in the queue.
        resamples: bootstrap samples of the recorded requests, 2 or more; all policies replay the same ones.
        seed: of the queues.
        on_simulation: called after each.

    Raises:
        ValueError: a run without positions, or of too few drafts; resamples below 2; what `simulate` refuses.
    """
    if not len(replay.run.ids):
        raise ValueError("run: expected at least one position, got none")
    if replay.run.num_drafts <= max(LENGTHS):
        raise ValueError(f"run: expected {max(LENGTHS) + 1} drafts or more, got {replay.run.num_drafts}")
    if resamples < 2:
        raise ValueError(f"resamples: expected 2 or more, got {resamples}")

    def measure(choice: Choice, sample: int) -> Metrics:
        queue = make_queue(replay.run.num_requests, num_requests, seed + sample, resample=sample > 0)
        metrics = simulate(replay, choice.make(costs), costs, batch_size=batch_size, queue=queue).metrics
        if on_simulation:
            on_simulation()
        return metrics

    points = [Point(choice, measure(choice, 0)) for choice in choices(replay.run.num_drafts)]
    wanted = _wanted(points)
    needed = dict.fromkeys(choice for _, *pair in wanted.values() for choice in pair)
    resampled = [{choice: measure(choice, 1 + i) for choice in needed} for i in range(resamples)]
    whole = {point.choice: point.metrics for point in points}
    contrasts = {name: _contrast(*terms, whole, resampled) for name, terms in wanted.items()}
    return Setting(replay.run.name, system, batch_size, tuple(points), contrasts)


Quantity = Callable[[Metrics], float]


def _wanted(points: Sequence[Point]) -> dict[str, tuple[Quantity, Choice, Choice]]:
    """The terms of each of `CONTRASTS`."""
    fixed = {point.choice.k: point for point in points if point.choice.kind == FIXED}
    pairs = [(point, fixed[point.choice.k]) for point in points if point.choice.kind == TETRIS]

    def most(quantity: Quantity) -> tuple[Quantity, Choice, Choice]:
        of, over = max(pairs, key=lambda pair: quantity(pair[0].metrics) / quantity(pair[1].metrics))
        return quantity, of.choice, over.choice

    best, best_fixed = _best(points, [TETRIS]).choice, _best(points, [FIXED]).choice
    return {
        "over_baseline": (throughput, best, _best(points, [FIXED, DSD]).choice),
        "over_fixed": (throughput, best, best_fixed),
        "over_same_k": most(throughput),
        "latency": (speed, best, best_fixed),
        "projected": most(efficiency),
        "dsd": (throughput, Choice(DSD), best_fixed),
    }


def _best(points: Sequence[Point], kinds: Sequence[str], e: int | None = None) -> Point:
    of = [point for point in points if point.choice.kind in kinds and (e is None or point.choice.e == e)]
    return max(of, key=lambda point: point.metrics.throughput)


def throughput(metrics: Metrics) -> float:
    return metrics.throughput


def efficiency(metrics: Metrics) -> float:
    return metrics.target_efficiency


def speed(metrics: Metrics) -> float:
    return 1 / metrics.latency


def _contrast(
    quantity: Quantity,
    of: Choice,
    over: Choice,
    whole: dict[Choice, Metrics],
    resampled: Sequence[dict[Choice, Metrics]],
) -> Contrast:
    def percent(metrics: dict[Choice, Metrics]) -> float:
        return 100 * (quantity(metrics[of]) / quantity(metrics[over]) - 1)

    error = float(np.std([percent(metrics) for metrics in resampled], ddof=1))
    return Contrast(of, over, percent(whole), percent(whole) - 2 * error, percent(whole) + 2 * error)
