"""Ways to calibrate, on drafts whose outcomes are made up."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tetris_decode.calibrators import FITS, LEAST, Verified, binned, isotonic, logistic

NONE = Verified(np.zeros((0, 3), np.float32), np.zeros(0, np.int64), np.zeros(0, np.int64))


def random_rows(seed: int, num_rows: int = 400, num_drafts: int = 3) -> Verified:
    """Drafts that are accepted as often as their scores say, to the power of 0.6."""
    rng = np.random.default_rng(seed)
    scores = np.log(rng.uniform(0.02, 1, (num_rows, num_drafts))).astype(np.float32)
    passes = rng.uniform(size=scores.shape) < np.exp(0.6 * scores)
    lens = rng.integers(0, num_drafts + 1, num_rows)
    leading = np.logical_and.accumulate(passes, axis=1).sum(1)
    return Verified(scores, lens, np.minimum(leading, lens))


def in_loops(of: Verified) -> list[tuple[int, float, bool]]:
    found = []
    for scores, length, leading in zip(of.scores.tolist(), of.lens.tolist(), of.leading.tolist(), strict=True):
        for j in range(length):
            found.append((j, scores[j], j < leading))
            if j >= leading:
                break
    return found


def test_outcomes_end_with_the_first_rejection():
    of = random_rows(0)
    assert list(zip(*(column.tolist() for column in of.outcomes()), strict=True)) == in_loops(of)


@pytest.mark.parametrize("name", FITS)
def test_every_way_gives_log_probabilities(name):
    of = random_rows(1)
    scores = np.array([[0.0, -1e-6, -80.0], [-0.7, -0.7, -0.7]], np.float32)
    for rows in (of, NONE):
        calibrated = FITS[name](rows)(scores)
        assert calibrated.shape == scores.shape and calibrated.dtype == np.float32
        assert np.isfinite(calibrated).all() and (calibrated <= 0).all()


def test_bins_are_rates_with_one_draft_more():
    of = random_rows(2)
    apply = binned(of)
    for position in range(3):
        for bin_ in range(10):
            score = math.log((bin_ + 0.5) / 10)
            here = [a for j, x, a in in_loops(of) if j == position and min(int(math.exp(x) * 10), 9) == bin_]
            expected = (sum(here) + (bin_ + 0.5) / 10) / (len(here) + 1)
            assert math.exp(apply(np.full((1, 3), score, np.float32))[0, position]) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("seed", range(6))
def test_isotonic_rates_are_the_best_rising_ones(seed):
    """By its formula: the largest, over what begins below, of the smallest mean, over what ends above."""
    of = random_rows(seed, num_rows=25)
    of = of._replace(scores=np.round(of.scores, 1))
    outcomes = sorted((x, a) for _, x, a in in_loops(of))
    values = sorted({x for x, _ in outcomes})
    apply = isotonic(of)
    for value in values:
        expected = max(
            min(np.mean([a for x, a in outcomes if low <= x <= high]) for high in values if high >= value)
            for low in values
            if low <= value
        )
        got = math.exp(apply(np.full((1, 3), value, np.float32))[0, 0])
        assert got == pytest.approx(max(expected, LEAST), rel=1e-5)


def test_isotonic_between_and_beyond_what_was_seen():
    of = Verified(
        np.log(np.array([[0.2], [0.4], [0.4], [0.8]])).astype(np.float32), np.ones(4, int), np.array([0, 0, 1, 1])
    )
    rates = np.exp(isotonic(of)(np.log(np.array([[0.1], [0.3], [0.5], [1.0]])).astype(np.float32)))[:, 0]
    assert rates.tolist() == pytest.approx([LEAST, LEAST, 0.5, 1.0])


def test_the_logistic_is_the_library_s():
    rates = np.exp(logistic(random_rows(3, num_rows=20000))(np.log(np.full((1, 3), 0.5, np.float32))))
    assert rates[0, 0] == pytest.approx(0.5**0.6, abs=0.03)
