"""exp in integers: all costs, each backend, and the machine code of GPUs."""

from __future__ import annotations

import math

import oracle_budgeting
import pytest
import torch
from cases import Target
from torch import Tensor

from tetris_kernels.reference.expectation import survival

BEYOND = 12 * 65536  # nats from which nothing survives
COSTS = torch.arange(2**20, dtype=torch.int32)  # 0 to 16 nats
LARGE = [2**20, 2**21 - 1, 2**21, 2**26, 2**30, 2**31 - 1]


def test_every_cost_is_within_its_bound() -> None:
    exact = torch.exp(-COSTS.double() / 65536) * 65536
    assert ((survival(COSTS) - exact).abs() <= 0.505).all()


def test_certain_drafts_survive_certainly() -> None:
    assert survival(COSTS[:1]).tolist() == [65536]
    assert survival(COSTS[1:2]).tolist() == [65535]


def test_more_cost_never_survives_better() -> None:
    steps = survival(COSTS).diff()
    assert steps.max() == 0 and steps.min() == -1


def test_nothing_survives_beyond() -> None:
    assert survival(torch.tensor([*range(BEYOND, BEYOND + 9), *LARGE], dtype=torch.int32)).max() == 0
    assert survival(torch.tensor([int(11.78 * 65536)])).tolist() == [1]


def test_reference_is_the_oracle() -> None:
    """On every 61st cost, all near the ends, and all where the number of whole bits changes."""
    turns = {round(bits * math.log(2) * 65536) + i for bits in range(1, 18) for i in range(-3, 4)}
    costs = sorted({*range(0, 2**20, 61), *range(300), *range(BEYOND - 300, BEYOND + 2), *turns, *LARGE})
    assert survival(torch.tensor(costs, dtype=torch.int32)).tolist() == list(map(oracle_budgeting.survival, costs))


def test_the_oracle_is_exp() -> None:
    for cost in range(0, 2**20, 997):
        assert abs(oracle_budgeting.survival(cost) - 65536 * math.exp(-cost / 65536)) <= 0.505


def test_kernels_have_the_same_bits(triton_target: Target) -> None:
    import survival_kernel

    found = survival_kernel.survivals(COSTS.to(triton_target.device))
    assert torch.equal(found.cpu(), survival(COSTS).int())


def test_compiled_kernels_have_the_same_bits() -> None:
    pytest.importorskip("triton")
    from conftest import INTERPRETED

    if INTERPRETED:
        pytest.skip("the interpreter replaces the compiler")
    import survival_kernel

    # Every seventh: a multiple of no power of two.
    costs: Tensor = COSTS[: BEYOND + 4096 : 7].contiguous()
    for capability in (80, 100):
        assert torch.equal(survival_kernel.executed(costs, capability), survival(costs).int())
