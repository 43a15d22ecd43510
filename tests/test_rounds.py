"""The kernel's search ends after a few rounds, whatever the keys: counted in the interpreter."""

from __future__ import annotations

import os

import pytest
import torch

from tetris_kernels import select

UNIT = 2.0**-16


def exponential(n: int, k: int, mean: float) -> torch.Tensor:
    return torch.rand(n, k, generator=torch.Generator().manual_seed(0)).log() * mean


BATCHES = {
    "smooth": (exponential(64, 8, 0.5), None),
    "near-certain": (torch.where(exponential(64, 8, 1) > -0.9, 0.0, exponential(64, 8, 0.5)), None),
    "all certain": (torch.zeros(64, 8), None),
    "all tied": (torch.full((64, 8), -0.5), None),
    "coarse": ((exponential(64, 8, 2) * 4).round() / 4, None),
    "a unit apart": ((exponential(64, 8, 2) * 2).round() * UNIT, None),
    "unlikely": (exponential(64, 8, 15), None),
    "beyond float32": (exponential(64, 8, 90), None),
    **{f"weight {w}": (exponential(64, 8, 0.5), torch.full((64,), w)) for w in (0.0, 5.0, 10.0, 50.0, 250.0, 499.0)},
    **{f"weight -{w}": (exponential(64, 8, 0.5), torch.full((64,), -w)) for w in (5.0, 50.0, 250.0)},
    "two classes": (exponential(64, 8, 0.5), torch.tensor([6.0, 0.0]).repeat(32)),
    "spread weights": (exponential(64, 8, 0.5), torch.linspace(-300, 300, 64)),
}
# After six rounds the bracket is moved to keys that exist: little is left of it.
ON_A_GRID = ("all tied", "coarse")


@pytest.mark.kernel
@pytest.mark.skipif(os.environ.get("TRITON_INTERPRET") != "1", reason="compiled code does not count its rounds")
@pytest.mark.parametrize("name", BATCHES)
def test_rounds_are_few(name, monkeypatch):
    from tetris_kernels.kernels import search

    rounds = []
    narrow = search._narrow
    monkeypatch.setattr(search, "_narrow", lambda *args: (rounds.append(1), narrow(*args))[1])
    logprobs, weights = BATCHES[name]
    for budget in (1, 51, 128, 256, 460, 511):
        rounds.clear()
        picked = select(logprobs, budget, log_weights=weights, backend="triton")
        # 13 rounds quarter a bracket of 2^25 to nothing; rounds that take less, near 0, come before.
        assert 1 <= len(rounds) <= (7 if name in ON_A_GRID else 20)
        assert torch.equal(picked.lens, select(logprobs, budget, log_weights=weights, backend="torch").lens)
