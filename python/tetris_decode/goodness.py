"""Do counts fit a law? Pearson's chi-square and the total variation, with a bound that always holds."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

MIN_EXPECTED = 5.0


@dataclass(frozen=True)
class Fit:
    """How well counts fit a law, or several counts their laws.

    freedom:   degrees of freedom; cells that expect less than MIN_EXPECTED are one cell.
    p_value:   the probability of a chi-square as large, if the law is right.
    variation: total variation between frequencies and law, over all cells; the mean of several.
    noise:     a bound on its mean, if the law is right.
    """

    samples: int
    freedom: int
    chi_square: float
    p_value: float
    variation: float
    noise: float

    def variation_limit(self, level: float) -> float:
        """What the variation exceeds with a probability of at most `level`, if the law is right.

        One sample more or less moves it by 1 / samples at most: McDiarmid's inequality.
        """
        return self.noise + math.sqrt(-math.log(level) / (2 * self.samples))

    def holds(self, level: float) -> bool:
        """Whether neither statistic rejects the law, at a level of `level` for each."""
        return self.p_value >= level and self.variation <= self.variation_limit(level)


def fit(counts: Tensor, law: Tensor) -> Fit:
    """`counts` of independent samples against their `law`, both over the same cells."""
    counts, law = counts.double().flatten(), law.double().flatten()
    samples = int(counts.sum())
    chi_square, freedom = _pearson(counts, law * samples)
    variation = float((counts / samples - law).abs().sum()) / 2
    noise = float((law * (1 - law) / samples).clamp(min=0).sqrt().sum()) / 2
    return Fit(samples, freedom, chi_square, chi_square_tail(chi_square, freedom), variation, noise)


def together(fits: Sequence[Fit]) -> Fit:
    """Independent fits of the same number of samples as one."""
    chi_square, freedom = sum(f.chi_square for f in fits), sum(f.freedom for f in fits)
    return Fit(
        sum(f.samples for f in fits),
        freedom,
        chi_square,
        chi_square_tail(chi_square, freedom),
        sum(f.variation for f in fits) / len(fits),
        sum(f.noise for f in fits) / len(fits),
    )


def chi_square_tail(chi_square: float, freedom: int) -> float:
    """The probability that a chi-square of so many degrees of freedom is at least this large."""
    if math.isinf(chi_square):
        return 0.0
    if freedom == 0:
        return 1.0
    halves = torch.tensor([freedom / 2, chi_square / 2], dtype=torch.float64)
    return float(torch.special.gammaincc(halves[0], halves[1]))


def _pearson(counts: Tensor, expected: Tensor) -> tuple[float, int]:
    """(chi-square, degrees of freedom)"""
    if counts[expected == 0].any():
        return math.inf, 0
    order = expected.argsort()
    counts, expected = counts[order], expected[order]
    # The smallest cells become one, with as many more as that one needs.
    num_small = int((expected < MIN_EXPECTED).sum())
    if num_small and float(expected[:num_small].sum()) < MIN_EXPECTED:
        num_small += 1
    merged = [torch.cat([x[:num_small].sum().reshape(-1), x[num_small:]]) for x in (counts, expected)]
    seen, mean = (x[int(num_small == 0) :] for x in merged)
    return float(((seen - mean) ** 2 / mean).sum()), len(mean) - 1
