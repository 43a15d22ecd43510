"""The statistics accept samples of a law, and reject those of another."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tetris_decode.goodness import MIN_EXPECTED, Fit, chi_square_tail, fit, together

LAW = torch.tensor([0.3, 0.25, 0.2, 0.15, 0.06, 0.04], dtype=torch.float64)


def sample(law: torch.Tensor, samples: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.bincount(torch.multinomial(law, samples, True, generator=generator), minlength=len(law))


@pytest.mark.parametrize("x", [0.1, 1.0, 10.0, 60.0, 500.0])
def test_tail_of_even_degrees_of_freedom(x):
    # For 2n degrees of freedom it is a Poisson sum.
    for halves in (1, 2, 5, 40):
        poisson = sum(math.exp(-x / 2 + i * math.log(x / 2) - math.lgamma(i + 1)) for i in range(halves))
        assert chi_square_tail(x, 2 * halves) == pytest.approx(poisson, rel=1e-9)


def test_tail_of_one_degree_of_freedom_and_of_none():
    assert chi_square_tail(1.96**2, 1) == pytest.approx(math.erfc(1.96 / math.sqrt(2)), rel=1e-9)
    assert chi_square_tail(0.0, 0) == 1.0
    assert chi_square_tail(math.inf, 3) == chi_square_tail(math.inf, 0) == 0.0


def test_numbers_by_hand():
    result = fit(torch.tensor([30, 50, 20]), torch.tensor([0.25, 0.5, 0.25]))
    assert (result.samples, result.freedom) == (100, 2)
    assert result.chi_square == pytest.approx(25 / 25 + 0 + 25 / 25)
    assert result.p_value == pytest.approx(math.exp(-1))
    assert result.variation == pytest.approx(0.05)
    assert result.noise == pytest.approx((2 * math.sqrt(0.25 * 0.75 / 100) + math.sqrt(0.5 * 0.5 / 100)) / 2)


@pytest.mark.parametrize(
    ("law", "freedom"),
    [
        ([0.5, 0.5], 1),
        ([0.9, 0.04, 0.03, 0.03], 1),  # 4, 3 and 3 expected: together 10
        ([0.6, 0.38, 0.02], 1),  # 2 expected: they join the 38
        ([0.98, 0.02], 0),  # nothing is left to compare
        ([0.5, 0.25, 0.25, 0.0], 2),
        ([1.0, 0.0], 0),
    ],
)
def test_rare_cells_are_merged(law, freedom):
    counts = torch.tensor([round(100 * p) for p in law])
    result = fit(counts, torch.tensor(law, dtype=torch.float64))
    assert MIN_EXPECTED == 5
    assert result.freedom == freedom
    assert result.chi_square == pytest.approx(0, abs=1e-12) and result.holds(0.5)


def test_what_cannot_happen_is_rejected_when_it_does():
    result = fit(torch.tensor([10_000, 1]), torch.tensor([1.0, 0.0]))
    assert result.p_value == 0.0 and not result.holds(1e-300)


def test_samples_of_the_law_are_accepted_as_often_as_they_should():
    fits = [fit(sample(LAW, 2000, seed), LAW) for seed in range(400)]
    # Binomial of 400: 5 % are 20, with a standard deviation of 4.4; 50 % are 200, of 10.
    assert abs(sum(f.p_value < 0.05 for f in fits) - 20) < 4 * 4.4
    assert abs(sum(f.p_value < 0.5 for f in fits) - 200) < 4 * 10
    assert all(f.holds(1e-6) for f in fits)
    mean = sum(f.variation for f in fits) / len(fits)
    assert 0.7 * fits[0].noise < mean < fits[0].noise, "a bound on the mean, and not far from it"
    assert sum(f.variation > f.variation_limit(0.05) for f in fits) <= 20 + 4 * 4.4


@pytest.mark.parametrize("shift", [0.02, -0.02])
def test_samples_of_another_law_are_rejected(shift):
    other = LAW + torch.tensor([shift, 0, 0, -shift, 0, 0], dtype=torch.float64)
    result = fit(sample(other, 20_000, 0), LAW)
    assert result.p_value < 1e-9 and not result.holds(1e-6)


def test_each_statistic_rejects_alone():
    good = Fit(1000, 1, 0.0, 1.0, 0.01, 0.01)
    assert good.holds(0.001)
    assert not replace(good, variation=0.1).holds(0.001)
    assert not replace(good, p_value=0.0009).holds(0.001)


def test_the_limit_of_the_variation():
    law = torch.tensor([0.5, 0.5])
    result = fit(torch.tensor([5500, 4500]), law)
    assert result.variation == pytest.approx(0.05)
    assert result.variation > result.variation_limit(0.001)
    assert result.variation_limit(0.001) == pytest.approx(result.noise + math.sqrt(math.log(1000) / 20_000))


def test_fits_together():
    fits = [fit(sample(LAW, 1000, seed), LAW) for seed in range(3)]
    result = together(fits)
    assert result.samples == 3000 and result.freedom == 15
    assert result.chi_square == pytest.approx(sum(f.chi_square for f in fits))
    assert result.p_value == chi_square_tail(result.chi_square, 15)
    assert result.variation == pytest.approx(sum(f.variation for f in fits) / 3)
    assert result.noise == pytest.approx(fits[0].noise)
