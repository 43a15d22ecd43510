"""The numbers that `plots` draws: from the JSON of `tetris-decode bench`, and from recorded drafts."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tetris_decode.metrics import Metrics
from tetris_decode.policies import FixedLength, Oracle, Policy, Tetris
from tetris_decode.simulate import Replay, simulate
from tetris_decode.traces import Run
from tetris_kernels import CostTable, select

BINS = 10


class Measured(NamedTuple):
    """A policy at one batch size and temperature: throughput over that of no speculation, with its interval."""

    batch_size: int
    temperature: float
    policy: str
    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Throughputs:
    """What `bench` wrote. machine: what it was measured on."""

    machine: str
    rows: tuple[Measured, ...]

    @property
    def batch_sizes(self) -> list[int]:
        return sorted({row.batch_size for row in self.rows})

    @property
    def temperatures(self) -> list[float]:
        return sorted({row.temperature for row in self.rows})

    @property
    def policies(self) -> list[str]:
        """In the order of the file; a small batch may lack some."""
        largest_first = sorted(self.rows, key=lambda row: -row.batch_size)
        return list(dict.fromkeys(row.policy for row in largest_first))


def read_bench(path: Path) -> Throughputs:
    """The JSON document of `tetris-decode bench`.

    Raises:
        ValueError: a file that cannot be read, or is something else.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        rows = tuple(
            Measured(
                int(row["batch_size"]),
                float(row["temperature"]),
                str(row["policy"]),
                *(float(row["relative"][name]) for name in ("median", "low", "high")),
            )
            for row in document["rows"]
        )
        machine = str(document["machine"])
    except (OSError, ValueError, TypeError, KeyError) as error:
        reason = f"none of {error}" if isinstance(error, KeyError) else error
        raise ValueError(f"results: expected the JSON of tetris-decode bench, got {path}: {reason}") from error
    if not rows:
        raise ValueError(f"results: expected at least one row, got none in {path}")
    return Throughputs(machine, rows)


class Point(NamedTuple):
    """Drafts verified per request and step, and tokens that came of it. label: the policy's k."""

    verified: float
    tokens: float
    label: str


@dataclass(frozen=True)
class BudgetCurves:
    """Of one run, each by rising budget. length: drafts that TETRIS and the oracle choose from."""

    run: str
    model: str
    batch_size: int
    length: int
    fixed: tuple[Point, ...]
    tetris: tuple[Point, ...]
    oracle: tuple[Point, ...]


def budgets(length: int) -> list[float]:
    """Drafts per request: dense where they matter."""
    return [k for k in (0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2, 2.5, 3, 3.5, *range(4, length + 1)) if k <= length]


def budget_curves(run: Run, batch_size: int, on_point: Callable[[], None] = lambda: None) -> BudgetCurves:
    """Replay a run under fixed lengths, TETRIS and the oracle; `on_point` is called after each replay."""
    replay, length = Replay(run), run.num_drafts
    # Only steps are counted here, and none takes longer than another.
    costs = CostTable({}, (1, 2), (1.0, 1.0), (0.0,) * (length + 1))

    def point(k: float, policy: Policy) -> Point:
        metrics = simulate(replay, policy, costs, batch_size=batch_size).metrics
        on_point()
        return Point(_verified_per_request(metrics), metrics.tokens_per_verification, f"{k:g}")

    return BudgetCurves(
        run=run.name,
        model=_model(run),
        batch_size=batch_size,
        length=length,
        fixed=tuple(point(k, FixedLength(k)) for k in range(1, length + 1)),
        tetris=tuple(point(k, Tetris(k, length)) for k in budgets(length)),
        oracle=tuple(point(k, Oracle(k, length)) for k in budgets(length)),
    )


def _verified_per_request(metrics: Metrics) -> float:
    # Below k towards the end of a text, where fewer drafts are made.
    return metrics.verified * metrics.tokens_per_verification / metrics.tokens if metrics.tokens else 0.0


@dataclass(frozen=True)
class Reliability:
    """How well the drafter's survival estimates are calibrated; `BINS` bins of 0..1, without the empty ones.

    estimated: [bins] the mean estimate. observed: [bins] the part that survived. counts: [bins] drafts.
    """

    run: str
    model: str
    estimated: NDArray[np.float64]
    observed: NDArray[np.float64]
    counts: NDArray[np.int64]

    @property
    def error(self) -> float:
        """The mean gap between both, over drafts (expected calibration error)."""
        return float(np.average(np.abs(self.estimated - self.observed), weights=self.counts))


def reliability(run: Run, scores: NDArray[np.float32] | None = None) -> Reliability:
    """A draft survives if it and all before it are accepted; the estimate is the product of q up to it.

    scores: [M, K] log-probabilities in place of the drafter's log q.

    Raises:
        ValueError: a run without a draft.
    """
    there = np.arange(run.num_drafts) < run.draft_lens[:, None]
    if not there.any():
        raise ValueError(f"run: expected one with drafts, got none in {run.name}")
    log_q = run.log_q if scores is None else scores
    estimate = np.exp(log_q.astype(np.float64).cumsum(1))[there]
    survived = np.logical_and.accumulate(run.accepted, axis=1)[there]
    bins = np.minimum((estimate * BINS).astype(np.int64), BINS - 1)
    counts = np.bincount(bins, minlength=BINS)
    kept = counts > 0
    estimated, observed = (
        np.bincount(bins, values, BINS)[kept] / counts[kept] for values in (estimate, survived.astype(np.float64))
    )
    return Reliability(run.name, _model(run), estimated, observed, counts[kept])


@dataclass(frozen=True)
class Allocation:
    """The drafts of one step, N requests x L positions, and which of them two policies of the same budget verify.

    step:     tokens that each request has generated before it.
    prompts:  [N] names.
    ids:      [N, L] token ids.
    survival: [N, L] the estimate that a draft and all before it are accepted, 0..1.
    accepted: [N, L] whether they are.
    fixed, tetris: [N] drafts that are verified.
    """

    run: str
    model: str
    step: int
    prompts: tuple[str, ...]
    ids: NDArray[np.int64]
    survival: NDArray[np.float64]
    accepted: NDArray[np.bool_]
    fixed: NDArray[np.int64]
    tetris: NDArray[np.int64]

    def num_accepted(self, lens: NDArray[np.int64]) -> int:
        """Accepted drafts if `lens` [N] of each request are verified."""
        return int(np.minimum(self.accepted.sum(1), lens).sum())


def allocations(run: Run, *, num_requests: int, k: int, extra: int) -> list[Allocation]:
    """Fixed k and TETRIS at every step, on the drafts of the first requests that have all k + extra drafts there.

    Raises:
        ValueError: more drafts than were recorded, or no step with so many such requests.
    """
    length = k + extra
    if not 1 <= k <= length <= run.num_drafts:
        raise ValueError(f"k + extra: expected 1 to {run.num_drafts}, the recorded drafts, got {k} + {extra}")
    has_drafts = run.draft_lens >= length
    by_step = (np.flatnonzero((run.generated == step) & has_drafts)[:num_requests] for step in np.unique(run.generated))
    made = [_allocation(run, rows, k, length) for rows in by_step if len(rows) == num_requests]
    if not made:
        raise ValueError(
            f"requests: expected as many as have {length} drafts at once in {run.name}, got {num_requests}"
        )
    return made


def _allocation(run: Run, rows: NDArray[np.int64], k: int, length: int) -> Allocation:
    log_q = run.log_q[rows, :length]
    chosen = select(torch.from_numpy(np.ascontiguousarray(log_q)), k * len(rows))
    return Allocation(
        run=run.name,
        model=_model(run),
        step=int(run.generated[rows[0]]),
        prompts=tuple(run.prompts[request] for request in run.request[rows]),
        ids=run.ids[rows, :length].astype(np.int64),
        survival=np.exp(log_q.astype(np.float64).cumsum(1)),
        accepted=np.logical_and.accumulate(run.accepted[rows, :length], axis=1),
        fixed=np.full(len(rows), k),
        tetris=chosen.lens.numpy().astype(np.int64),
    )


def mean_accepted(steps: Sequence[Allocation]) -> tuple[float, float]:
    """Accepted drafts of a step, under the fixed length and under TETRIS."""
    fixed, tetris = np.mean([(step.num_accepted(step.fixed), step.num_accepted(step.tetris)) for step in steps], axis=0)
    return float(fixed), float(tetris)


def typical(steps: Sequence[Allocation]) -> Allocation:
    """The step that is nearest to the mean step, by accepted drafts under both; the first of equals."""
    fixed, tetris = mean_accepted(steps)
    return min(steps, key=lambda s: abs(s.num_accepted(s.fixed) - fixed) + abs(s.num_accepted(s.tetris) - tetris))


def _model(run: Run) -> str:
    """The target that was recorded, as far as the run knows."""
    return run.about.get("model", "an unknown model")
