"""Replay recorded drafts under two policies that verify the same number of drafts in every step.

"Fixed k" verifies the first k drafts of every request. TETRIS may spend the same k * B drafts where it likes
in the batch of B requests, among the first k + extra drafts of each (`tetris_kernels.select`).

What this can show: which of two policies picks the better drafts to verify, given the same drafts. What it
cannot: how a whole generation would go on. Every policy sees the same rows, in the order of their steps, and
the contexts of these rows follow the policy of the recording, which verified all 8 drafts. Nothing is timed,
and the extra drafts are not charged for.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from tetris_decode.traces import NUM_DRAFTS, Run
from tetris_kernels import select

IntArray = NDArray[np.int64]

RESAMPLES = 2000
SEED = 0


@dataclass(frozen=True)
class Metrics:
    """One policy on one run. A verification is one request in one step.

    drafts_verified:           drafts given to the target, in all.
    accepted_per_verification: accepted drafts per verification: the leading accepted ones among those verified.
    tokens_per_verification:   accepted drafts + 1 bonus token, per verification.
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
    """Both policies on the same rows.

    drafts_per_request: k, the budget of a step divided by `batch_size`.
    drafts_offered:     drafts of each request that TETRIS chooses from.
    fixed:              None where k is not whole: a fixed length cannot spend such a budget.
    """

    run: str
    batch_size: int
    steps: int
    drafts_per_request: float
    drafts_offered: int
    fixed: Metrics | None
    tetris: Metrics
    accepted_gain: Gain | None
    tokens_gain: Gain | None


def compare(run: Run, *, batch_size: int, drafts_per_request: float, extra: int) -> Comparison:
    """Replay `run` in batches of `batch_size` requests with a budget of `drafts_per_request * batch_size`.

    Args:
        run: the recorded drafts.
        batch_size: B, 1 up to the number of recorded requests.
        drafts_per_request: k, above 0 and up to 8; k * B must be whole.
        extra: drafts beyond k (rounded up) that TETRIS chooses from; 8 or more offers all that were recorded.

    Raises:
        ValueError: an argument outside these limits.
    """
    budget = _check(run, batch_size, drafts_per_request, extra)
    offered = min(math.ceil(drafts_per_request) + extra, NUM_DRAFTS)
    rows = batch_rows(len(run.log_q), batch_size)
    request = run.request[rows]

    accepted = accepted_drafts(run.accepted[rows], tetris_lens(run.log_q[rows, :offered], budget))
    tetris = _metrics(accepted, budget)
    if drafts_per_request % 1:
        return Comparison(run.name, batch_size, len(rows), drafts_per_request, offered, None, tetris, None, None)
    baseline = accepted_drafts(run.accepted[rows], np.full(rows.shape, int(drafts_per_request)))
    return Comparison(
        run.name,
        batch_size,
        len(rows),
        drafts_per_request,
        offered,
        _metrics(baseline, budget),
        tetris,
        paired_gain(baseline, accepted, request),
        paired_gain(baseline + 1, accepted + 1, request),
    )


def batch_rows(num_rows: int, batch_size: int) -> IntArray:
    """[steps, B]: the row that each slot of the batch replays in each step.

    A stand-in for continuous batching, where a slot whose request has ended takes the next one: the rows, one
    request after the other, are cut into B equal stretches, and each slot replays one stretch in order. So
    every step is a full batch, no row is used twice, and at most B - 1 rows at the end are left out. A request
    that straddles a cut is continued by two slots at once.
    """
    steps = num_rows // batch_size
    return np.arange(steps * batch_size).reshape(batch_size, steps).T


def tetris_lens(log_q: NDArray[np.float32], budget: int) -> IntArray:
    """[steps, B]: drafts verified of each request, `budget` in every step; `log_q` is [steps, B, K]."""
    return torch.stack([select(step, budget).lens for step in torch.from_numpy(log_q)]).numpy().astype(np.int64)


def accepted_drafts(accepted: NDArray[np.bool_], lens: IntArray) -> IntArray:
    """[steps, B]: leading accepted drafts among the first `lens` [steps, B]; `accepted` is [steps, B, 8]."""
    leading: IntArray = np.logical_and.accumulate(accepted, axis=2).sum(2)
    return np.minimum(leading, lens)


def paired_gain(baseline: IntArray, other: IntArray, request: IntArray) -> Gain | None:
    """The gain of `other` over `baseline`, counts of the same rows; None if the baseline counts nothing.

    The interval resamples requests, with all their rows, since rows of one request are alike. Batches stay as
    they were replayed.
    """
    if not baseline.any():
        return None
    size = int(request.max()) + 1
    sums = np.stack([np.bincount(request.ravel(), counts.ravel(), size) for counts in (baseline, other)])
    weights = np.random.default_rng(SEED).multinomial(size, np.full(size, 1 / size), RESAMPLES)
    resampled = weights @ sums.T
    before, after = resampled[resampled[:, 0] > 0].T
    low, high = np.quantile(100 * (after / before - 1), (0.025, 0.975))
    return Gain(100 * float(sums[1].sum() / sums[0].sum() - 1), float(low), float(high))


def _metrics(accepted: IntArray, budget: int) -> Metrics:
    verified = budget * len(accepted)
    per_verification = float(accepted.mean())
    return Metrics(verified, per_verification, per_verification + 1, float(accepted.sum()) / verified)


def _check(run: Run, batch_size: int, drafts_per_request: float, extra: int) -> int:
    """The budget of a step."""
    if not 1 <= batch_size <= run.num_requests:
        raise ValueError(f"batch size: expected 1 to {run.num_requests}, the recorded requests, got {batch_size}")
    if not 0 < drafts_per_request <= NUM_DRAFTS:
        raise ValueError(f"drafts per request: expected more than 0, up to {NUM_DRAFTS}, got {drafts_per_request:g}")
    # 1.1 * 10 is not 11 in floating point.
    budget = round(drafts_per_request * batch_size, 9)
    if budget % 1:
        raise ValueError(
            "drafts per request: expected a whole number of drafts in a step, "
            f"got {drafts_per_request:g} x {batch_size} requests = {budget:g}"
        )
    if extra < 0:
        raise ValueError(f"extra: expected 0 or more, got {extra}")
    return int(budget)
