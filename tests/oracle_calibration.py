"""Calibration in plain Python: which drafts were tested, the curve, and the gradient of what it maximises.

That the gradient is small is all there is to ask of a fit: the objective is strongly concave, its curvature at least
the ridge in every direction, so the maximum is no further away than |gradient| / ridge.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

LIMIT, BINS_PER_UNIT = 16, 4


class Row(NamedTuple):
    """One request of a step."""

    scores: Sequence[float]
    length: int  # verified
    count: int  # tokens emitted
    coupled: bool
    draft_length: int


class Tested(NamedTuple):
    """One outcome."""

    position: int
    score: float
    accepted: bool


def tested(row: Row, bonus: str) -> list[Tested]:
    """The drafts whose outcome is known: up to the first rejection, and no further than they were verified."""
    found: list[Tested] = []
    if row.count == 0:
        return found
    for j in range(min(row.length, row.draft_length)):
        if j < row.count - 1:
            found.append(Tested(j, row.scores[j], True))
        else:
            return [*found, Tested(j, row.scores[j], False)]
    if bonus == "coupled" and row.length < row.draft_length:
        found.append(Tested(row.length, row.scores[row.length], row.coupled))
    return found


def log_odds(score: float) -> float:
    """Of exp(score), within the limits."""
    if score >= 0:
        return float(LIMIT)
    if score == -math.inf:
        return float(-LIMIT)
    return min(max(score - math.log(-math.expm1(score)), -LIMIT), LIMIT)


def bin_of(score: float) -> int:
    """The bin that it is counted in."""
    return min(math.floor((log_odds(score) + LIMIT) * BINS_PER_UNIT), 2 * LIMIT * BINS_PER_UNIT - 1)


def middle(score: float) -> float:
    """Of the log-odds in its bin."""
    return (bin_of(score) + 0.5) / BINS_PER_UNIT - LIMIT


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def softplus(x: float) -> float:
    """log(1 + e^x), which is -log(sigmoid(-x))."""
    return max(x, 0) + math.log1p(math.exp(-abs(x)))


def calibrated(score: float, slope: float, intercept: float) -> float:
    """The log of the estimate."""
    return -softplus(-(slope * log_odds(score) + intercept))


def gradient(
    outcomes: Iterable[tuple[float, Tested]], slope: float, intercepts: Sequence[float], ridge: float
) -> list[float]:
    """Of log-likelihood - ridge / 2 * ((slope - 1)^2 + sum of intercepts^2), by slope and intercepts.

    outcomes: with what each counts.
    """
    terms: list[list[float]] = [[-ridge * (slope - 1)], *([-ridge * b] for b in intercepts)]
    for weight, outcome in outcomes:
        x = middle(outcome.score)
        residual = weight * (outcome.accepted - sigmoid(slope * x + intercepts[outcome.position]))
        terms[0].append(residual * x)
        terms[1 + outcome.position].append(residual)
    return [math.fsum(column) for column in terms]


def log_posterior(
    outcomes: Iterable[tuple[float, Tested]], slope: float, intercepts: Sequence[float], ridge: float
) -> float:
    """What `gradient` is the gradient of."""
    terms = [-ridge / 2 * (slope - 1) ** 2, *(-ridge / 2 * b * b for b in intercepts)]
    for weight, outcome in outcomes:
        x = slope * middle(outcome.score) + intercepts[outcome.position]
        terms.append(-weight * softplus(-x if outcome.accepted else x))
    return math.fsum(terms)
