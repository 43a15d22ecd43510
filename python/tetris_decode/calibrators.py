"""Ways to learn acceptance estimates from scores, to compare with each other: the library's logistic and two others.

Each is a function of what was tested that returns a function of scores, [M, K] float32 log-probabilities to the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tetris_kernels import Calibration

Scores = NDArray[np.float32]
Apply = Callable[[Scores], Scores]
BINS = 10
# What never happened is still taken for possible.
LEAST = 1e-3


class Verified(NamedTuple):
    """Rows whose drafts were all verified: M rows of K drafts.

    scores:  [M, K] float32 log-probabilities.
    lens:    [M] int64, drafts of each row.
    leading: [M] int64, those before the first rejection.
    """

    scores: Scores
    lens: NDArray[np.int64]
    leading: NDArray[np.int64]

    def outcomes(self) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.bool_]]:
        """Positions, scores and acceptance of the drafts that were reached, in one list each."""
        position = np.arange(self.scores.shape[1])
        reached = position <= np.minimum(self.leading, self.lens - 1)[:, None]
        row, position = np.nonzero(reached)
        return position, self.scores[row, position].astype(np.float64), position < self.leading[row]


def logistic(of: Verified) -> Apply:
    """`tetris_kernels.Calibration`: a slope, and an intercept for each position."""
    calibration = Calibration(of.scores.shape[1], half_life=math.inf, warmup=0)
    calibration.update(
        torch.from_numpy(of.scores),
        torch.from_numpy(of.lens),
        torch.from_numpy((of.leading + 1).astype(np.int32)),
        torch.zeros(len(of.lens), dtype=torch.bool),
        kind="token",
        draft_lens=torch.from_numpy(of.lens),
    )
    for _ in range(3):
        calibration.refit()
    return lambda scores: calibration(torch.from_numpy(scores), kind="token").numpy()


def binned(of: Verified) -> Apply:
    """The acceptance rate in each of `BINS` bins of the score's probability, for each position by itself.

    A bin counts as if one more draft had been there, accepted as its middle says.
    """
    position, score, accepted = of.outcomes()
    shape = of.scores.shape[1], BINS
    cell = position * BINS + _bin(score)
    tested, passed = (np.bincount(cell, weights, math.prod(shape)).reshape(shape) for weights in (None, accepted))
    rates = (passed + (np.arange(BINS) + 0.5) / BINS) / (tested + 1)
    return lambda scores: np.log(rates[np.arange(shape[0]), _bin(scores)]).astype(np.float32)


def isotonic(of: Verified) -> Apply:
    """The rising step function of the score with the least squared error, all positions together."""
    _, score, accepted = of.outcomes()
    values, group = np.unique(score, return_inverse=True)
    if not len(values):
        return lambda scores: scores
    rates = _rising(np.bincount(group, accepted), np.bincount(group))

    def apply(scores: Scores) -> Scores:
        at = np.clip(np.searchsorted(values, scores, side="right") - 1, 0, None)
        return np.log(np.clip(rates[at], LEAST, 1)).astype(np.float32)

    return apply


FITS: dict[str, Callable[[Verified], Apply]] = {"logistic": logistic, "binned": binned, "isotonic": isotonic}


def _bin(scores: NDArray[np.floating]) -> NDArray[np.int64]:
    bins: NDArray[np.int64] = np.minimum((np.exp(scores) * BINS).astype(np.int64), BINS - 1)
    return bins


def _rising(sums: NDArray[Any], weights: NDArray[Any]) -> NDArray[np.float64]:
    """Pool adjacent violators: means of blocks, none lower than the one before."""
    blocks: list[tuple[float, float, int]] = []
    for total, weight in zip(sums.tolist(), weights.tolist(), strict=True):
        length = 1
        while blocks and blocks[-1][0] * weight >= total * blocks[-1][1]:
            before = blocks.pop()
            total, weight, length = total + before[0], weight + before[1], length + before[2]
        blocks.append((total, weight, length))
    return np.repeat([total / weight for total, weight, _ in blocks], [length for *_, length in blocks])
