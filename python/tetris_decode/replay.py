"""Replay recorded drafts under two policies that have the same budget of drafts to verify in every step.

"Fixed k" verifies the first k drafts of every request. TETRIS may spend the same k * (running requests) drafts where
it likes in the batch, among the first k + extra drafts of each (`tetris_kernels.select`).

Both decode the same texts to their ends (`simulate`): what differs is how many verifications that takes. Nothing is
timed, and the extra drafts are not charged for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tetris_decode.policies import FixedLength, Policy, Tetris
from tetris_decode.simulate import Replay, Simulation, make_queue, simulate
from tetris_kernels import CostTable

RESAMPLES = 2000
SEED = 0
# A clock is not read here.
COSTS = CostTable({"clock": "none"}, (1, 2), (1.0, 1.0), (0.0,) * 257)


@dataclass(frozen=True)
class Outcome:
    """One policy on one run. A verification is one request in one step.

    drafts_verified:           drafts given to the target, in all.
    accepted_per_verification: accepted drafts per verification.
    tokens_per_verification:   tokens per verification: the accepted drafts and a bonus token.
    success_rate:              VSR: accepted drafts / verified drafts, 0..1.
    """

    drafts_verified: int
    accepted_per_verification: float
    tokens_per_verification: float
    success_rate: float


@dataclass(frozen=True)
class Gain:
    """TETRIS over fixed k in percent, with the 95 % bootstrap interval over requests."""

    percent: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Both policies on the same texts.

    drafts_per_request: k, the budget of a step divided by the requests that run.
    drafts_offered:     drafts of each request that TETRIS chooses from.
    verifications:      under TETRIS.
    fixed:              None where k is not whole: a fixed length cannot spend such a budget.
    """

    run: str
    batch_size: int
    drafts_per_request: float
    drafts_offered: int
    verifications: int
    fixed: Outcome | None
    tetris: Outcome
    accepted_gain: Gain | None
    tokens_gain: Gain | None


def compare(replay: Replay, *, batch_size: int, drafts_per_request: float, extra: int) -> Comparison:
    """Decode every recorded request once, `batch_size` at a time, with a budget of `drafts_per_request` for each.

    Args:
        replay: the recorded drafts.
        batch_size: 1 up to the number of recorded requests.
        drafts_per_request: k, above 0 and up to the K recorded drafts.
        extra: drafts beyond k (rounded up) that TETRIS chooses from, at most the K recorded ones.

    Raises:
        ValueError: an argument outside these limits.
    """
    run = replay.run
    if not 1 <= batch_size <= run.num_requests:
        raise ValueError(f"batch size: expected 1 to {run.num_requests}, the recorded requests, got {batch_size}")
    if not 0 < drafts_per_request <= run.num_drafts:
        raise ValueError(
            f"drafts per request: expected more than 0, up to {run.num_drafts}, got {drafts_per_request:g}"
        )
    if extra < 0:
        raise ValueError(f"extra: expected 0 or more, got {extra}")
    offered = min(math.ceil(drafts_per_request) + extra, run.num_drafts)
    queue = make_queue(run.num_requests, run.num_requests, SEED)

    def outcome(policy: Policy) -> Simulation:
        return simulate(replay, policy, COSTS, batch_size=batch_size, queue=queue)

    tetris = outcome(Tetris(drafts_per_request, offered))
    fixed = outcome(FixedLength(int(drafts_per_request))) if drafts_per_request % 1 == 0 else None
    tokens = run.num_rows[queue]
    return Comparison(
        run=run.name,
        batch_size=batch_size,
        drafts_per_request=drafts_per_request,
        drafts_offered=offered,
        verifications=int(tetris.verifications.sum()),
        fixed=_outcome(fixed) if fixed else None,
        tetris=_outcome(tetris),
        accepted_gain=_gain(fixed, tetris, fixed.accepted, tetris.accepted) if fixed else None,
        tokens_gain=_gain(fixed, tetris, tokens, tokens) if fixed else None,
    )


def paired_gain(before: NDArray[np.int64], after: NDArray[np.int64]) -> Gain | None:
    """The gain in a rate, from numerators and denominators of each request, [R, 2] each; None over a rate of 0.

    The interval resamples requests, both policies' together. Batches stay as they were.
    """
    if not before[:, 0].any():
        return None
    size = len(before)
    weights = np.random.default_rng(SEED).multinomial(size, np.full(size, 1 / size), RESAMPLES)
    sums = np.concatenate([before, after], axis=1)
    resampled = weights @ sums
    resampled = resampled[(resampled[:, :2] > 0).all(1)]
    low, high = np.quantile(100 * _relative(resampled), (0.025, 0.975))
    return Gain(100 * float(_relative(sums.sum(0))), float(low), float(high))


def _relative(sums: NDArray[np.int64]) -> NDArray[np.float64]:
    """How much the rate of the last two of `sums` [..., 4] is above that of the first two."""
    before, over, after, over_after = np.moveaxis(sums, -1, 0)
    relative: NDArray[np.float64] = (after / over_after) / (before / over) - 1
    return relative


def _gain(fixed: Simulation, tetris: Simulation, before: NDArray[np.int64], after: NDArray[np.int64]) -> Gain | None:
    return paired_gain(np.stack([before, fixed.verifications], axis=1), np.stack([after, tetris.verifications], axis=1))


def _outcome(simulation: Simulation) -> Outcome:
    metrics = simulation.metrics
    verifications = int(simulation.verifications.sum())
    return Outcome(
        drafts_verified=metrics.verified,
        accepted_per_verification=metrics.accepted / verifications if verifications else 0.0,
        tokens_per_verification=metrics.tokens_per_verification,
        success_rate=metrics.success_rate or 0.0,
    )
