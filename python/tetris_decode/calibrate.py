"""What calibrating scores gains on recorded drafts: reliability, ranking, and accepted drafts under TETRIS.

Cross-fitted: what calibrates the drafts of a request was learned from other requests, of what a policy that verifies
everything sees: the drafts of each position up to the first rejection. Online: one pass in the simulator, learning
from what TETRIS verified, from the identity on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tetris_decode.calibrators import FITS, Verified
from tetris_decode.policies import Calibrated, Policy, Tetris
from tetris_decode.replay import COSTS, SEED, Gain, paired_gain
from tetris_decode.simulate import Replay, Simulation, make_queue, simulate
from tetris_decode.traces import Run
from tetris_kernels import Calibration

FOLDS = 5
BINS = 10
RESAMPLES = 200
RAW, ONLINE = "as drafted", "online"

Scores = NDArray[np.float32]
FloatArray = NDArray[np.float64]


class Change(NamedTuple):
    """Calibrated minus as drafted, with the 95 % bootstrap interval over requests."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Fitted:
    """Survival estimates of all recorded drafts: products of calibrated scores up to each.

    error: expected calibration error, the mean gap between estimated and observed survival in `BINS` bins of 0..1.
    auc:   the probability that a draft that survives is estimated higher than one that does not; ties count half.
    error_change, auc_change: None of scores as they were drafted.
    """

    run: str
    method: str
    error: float
    auc: float
    error_change: Change | None
    auc_change: Change | None


@dataclass(frozen=True)
class Gained:
    """Accepted drafts per verification under TETRIS, and the gain over the scores as they were drafted."""

    run: str
    method: str
    drafts_per_request: float
    accepted_per_verification: float
    gain: Gain | None


def verified(run: Run, rows: NDArray[np.int64]) -> Verified:
    """What verifying all drafts of these rows would have shown."""
    accepted = np.logical_and.accumulate(run.accepted[rows], axis=1)
    lens = np.asarray(run.draft_lens[rows])
    return Verified(run.log_q[rows], lens, np.minimum(accepted.sum(1), lens))


def folds(run: Run) -> NDArray[np.int64]:
    """[M] int64, the fold of each row: 0 to FOLDS - 1 by request, at random."""
    fold = np.random.default_rng(SEED).permutation(run.num_requests) % FOLDS
    return fold[run.request]


def cross_fitted(run: Run, method: str) -> Scores:
    """[M, K] scores, each learned from the requests of other folds."""
    calibrated, fold = np.zeros_like(run.log_q), folds(run)
    for held_out in range(FOLDS):
        apply = FITS[method](verified(run, np.flatnonzero(fold != held_out)))
        rows = np.flatnonzero(fold == held_out)
        calibrated[rows] = apply(run.log_q[rows])
    return calibrated


def fitted(run: Run, scores: Mapping[str, Scores]) -> Iterator[Fitted]:
    """The quality of each of some scores [M, K]; those named RAW are the ones that others are compared with.

    Raises:
        ValueError: a run without a draft.
    """
    there = np.arange(run.num_drafts) < run.draft_lens[:, None]
    if not there.any():
        raise ValueError(f"run: expected one with drafts, got none in {run.name}")
    survived = np.logical_and.accumulate(run.accepted, axis=1)[there]
    request = np.repeat(run.request, run.draft_lens)
    size = run.num_requests
    weights = np.random.default_rng(SEED).multinomial(size, np.full(size, 1 / size), RESAMPLES)
    weights = np.concatenate([np.ones((1, size), np.int64), weights])

    def measured(name: str) -> tuple[FloatArray, FloatArray]:
        estimate = np.exp(scores[name].astype(np.float64).cumsum(1))[there]
        return _errors(estimate, survived, request, weights), _aucs(estimate, survived, request, weights)

    raw = measured(RAW)
    for name in scores:
        errors, aucs = measured(name)
        changes = [None, None] if name == RAW else [_change(errors - raw[0]), _change(aucs - raw[1])]
        yield Fitted(run.name, name, float(errors[0]), float(aucs[0]), *changes)


def gained(
    run: Run,
    scores: Mapping[str, Scores],
    *,
    batch_size: int,
    drafts_per_request: float,
    on_simulation: Callable[[], None] = lambda: None,
) -> list[Gained]:
    """TETRIS with each of some scores, RAW first, and with online calibration, on the same texts.

    Raises:
        ValueError: a batch_size that is not 1 up to the recorded requests, drafts_per_request not above 0 or beyond
            the recorded drafts.
    """
    if not 1 <= batch_size <= run.num_requests:
        raise ValueError(f"batch size: expected 1 to {run.num_requests}, the recorded requests, got {batch_size}")
    if not 0 < drafts_per_request <= run.num_drafts:
        expected = f"more than 0, up to {run.num_drafts}"
        raise ValueError(f"drafts per request: expected {expected}, got {drafts_per_request:g}")
    queue = make_queue(run.num_requests, run.num_requests, SEED)
    policy = Tetris(drafts_per_request, run.num_drafts)

    def outcome(log_q: Scores, policy: Policy) -> Simulation:
        simulation = simulate(Replay(replace(run, log_q=log_q)), policy, COSTS, batch_size=batch_size, queue=queue)
        on_simulation()
        return simulation

    raw = outcome(scores[RAW], policy)
    outcomes = {RAW: raw} | {name: outcome(log_q, policy) for name, log_q in scores.items() if name != RAW}
    # No warm-up: it would verify more than the others may.
    online = Calibrated(policy, Calibration(run.num_drafts, warmup=0))
    outcomes[ONLINE] = outcome(scores[RAW], online)
    return [
        _gained(run.name, name, drafts_per_request, of, None if of is raw else raw) for name, of in outcomes.items()
    ]


def _gained(run: str, name: str, drafts_per_request: float, of: Simulation, raw: Simulation | None) -> Gained:
    rate = of.accepted.sum() / max(of.verifications.sum(), 1)
    pairs = [np.stack([s.accepted, s.verifications], axis=1) for s in (raw, of) if s]
    return Gained(run, name, drafts_per_request, float(rate), paired_gain(*pairs) if raw else None)


def _change(differences: FloatArray) -> Change:
    """Of [1 + RESAMPLES] differences, the first of them on all requests."""
    low, high = np.nanquantile(differences[1:], (0.025, 0.975))
    return Change(float(differences[0]), float(low), float(high))


def _errors(
    estimate: FloatArray, survived: NDArray[np.bool_], request: NDArray[np.int64], weights: NDArray[np.int64]
) -> FloatArray:
    """[W] expected calibration errors, of requests that count as often as each row of weights [W, R] says."""
    size = weights.shape[1]
    cell = request * BINS + np.minimum((estimate * BINS).astype(np.int64), BINS - 1)
    gap = np.bincount(cell, estimate - survived, size * BINS).reshape(size, BINS)
    drafts = weights @ np.bincount(request, minlength=size)
    errors: FloatArray = np.abs(weights @ gap).sum(1) / np.maximum(drafts, 1)
    return errors


def _aucs(
    estimate: FloatArray, survived: NDArray[np.bool_], request: NDArray[np.int64], weights: NDArray[np.int64]
) -> FloatArray:
    """[W] areas under the ROC curve; NaN where all drafts survive, or none."""
    order = np.argsort(estimate, kind="stable")
    survived, request = survived[order], request[order]
    # Equal estimates are one group, and each pair in it counts half.
    group = np.unique(estimate[order], return_inverse=True)[1]
    areas = np.full(len(weights), np.nan)
    for i, of_request in enumerate(weights):
        weight = of_request[request].astype(np.float64)
        good, bad = np.bincount(group, weight * survived), np.bincount(group, weight * ~survived)
        if good.any() and bad.any():
            areas[i] = (good * (bad.cumsum() - bad / 2)).sum() / (good.sum() * bad.sum())
    return areas
