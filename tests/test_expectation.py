"""`expected_accepts` of every backend against the oracle: bit for bit."""

from __future__ import annotations

import itertools
import math

import oracle
import oracle_budgeting
import pytest
import torch
from budgeting_cases import check_expected, large, sums_of
from cases import CASES, SPECIAL, Case, Target, certain, coarse, far, peaked, random_case, some_budgets
from conftest import INTERPRETED

from tetris_kernels import backend, expected_accepts, select
from tetris_kernels.reference import expectation as reference

pytestmark = pytest.mark.usefixtures("poisoned")

# At least one for each bucket of the kernel; the last six fill theirs to the last row and draft.
SIZES = [(20, 6), (64, 8), (40, 30), (200, 6), (256, 11), (700, 7)]
SIZES += [(2048, 8), (1024, 16), (512, 32), (256, 64), (128, 128), (64, 256)]
EXTREME = [-(2**63), -(2**31), -1, 2**31 - 1, 2**31, 2**63 - 1]


def budgets_of(sums: list[int], device: str, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    """From most to least, one below 0."""
    values = [*some_budgets(len(sums) - 1)[:: -1 - 2 * INTERPRETED], -3]
    return torch.tensor(values, dtype=dtype, device=device)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_named_cases(case: Case, target: Target) -> None:
    sums = sums_of(case)
    dtype = torch.int64 if len(case.name) % 2 else torch.int32
    check_expected(case.on(target.device), budgets_of(sums, target.device, dtype), sums, target.backend)


@pytest.mark.parametrize("sweep", range(5))
def test_random_batches(sweep: int, target: Target) -> None:
    count = 6 if INTERPRETED else 100
    for seed in range(sweep * count, (sweep + 1) * count):
        case = random_case(seed, *((5, 40) if seed % 10 == 9 else (9, 9)))
        sums = sums_of(case)
        check_expected(case.on(target.device), budgets_of(sums, target.device), sums, target.backend)


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_large_batches(n: int, k: int, target: Target) -> None:
    cases = [large(n, k), Case("all certain", torch.zeros(n, k))]
    for case in cases[: 1 if INTERPRETED else 2]:
        sums = sums_of(case)
        total = len(sums) - 1
        budgets = torch.tensor([total // 3] if INTERPRETED else [total // 3, 2 * total // 3, total])
        check_expected(case.on(target.device), budgets.to(target.device), sums, target.backend)


def test_sizes_reach_every_bucket() -> None:
    kernels = pytest.importorskip("tetris_kernels.kernels.expectation")
    assert {kernels.bucket(n, k) for n, k in SIZES} == set(kernels.BUCKETS)


@pytest.mark.parametrize("count", [0, 1, 2] if INTERPRETED else [0, 1, 2, 63, 64])
def test_numbers_of_budgets(count: int, target: Target) -> None:
    case = Case("", certain(6, 4))
    budgets = torch.arange(count, device=target.device).flip(0)
    check_expected(case.on(target.device), budgets, sums_of(case), target.backend)


def test_extreme_budgets_and_strides(target: Target) -> None:
    case = Case("", coarse(6, 4))
    wide = torch.tensor(EXTREME, device=target.device)
    narrow = torch.tensor([2**31 - 1, 7, -(2**31), 5, 3, 7], dtype=torch.int32, device=target.device)
    for budgets in (wide, wide.flip(0)[1::2], narrow, narrow[1:][::2], narrow[3:4].expand(5)):
        before = budgets.clone()
        check_expected(case.on(target.device), budgets, sums_of(case), target.backend)
        assert torch.equal(budgets, before)


def test_it_is_the_survival_of_what_select_keeps(target: Target) -> None:
    for seed in range(10 if INTERPRETED else 50):
        case = random_case(seed + 5000)
        costs = oracle.batch_keys(case.logprobs.tolist())
        moved = case.on(target.device)
        budget = case.logprobs.numel() * (seed % 7) // 7
        kept = moved.select(budget, target.backend).lens.tolist()
        total = sum(oracle_budgeting.survival(cost) for row, n in zip(costs, kept, strict=True) for cost in row[:n])
        budgets = torch.tensor([budget], device=target.device)
        found = expected_accepts(moved.logprobs, budgets, **moved.rows, backend=target.backend)
        assert found.tolist() == [oracle.float32(total) / 65536]


def test_it_is_the_sum_of_the_products_of_probabilities(target: Target) -> None:
    logprobs = peaked(8, 6)
    lens = select(logprobs, 20).lens.tolist()
    exact = sum(math.exp(logprobs[r, : j + 1].double().sum()) for r, n in enumerate(lens) for j in range(n))
    found = expected_accepts(logprobs.to(target.device), torch.tensor([20], device=target.device))
    # Each cost is truncated by up to a unit a token, each survival is within 0.505 of one; float32 rounds the sum.
    assert abs(found.item() - exact) <= 20 * (6 + 0.505) * 2**-16 + exact * 2**-24


def test_a_larger_budget_is_worth_more_and_each_draft_less(target: Target) -> None:
    budgets = torch.arange(12 if INTERPRETED else 49, device=target.device)
    found = expected_accepts(certain(8, 6).to(target.device), budgets, backend=target.backend)
    gains = found.diff()
    assert (gains >= 0).all() and (gains.diff() <= 0).all()


def test_weights_and_floors_choose_but_do_not_count(target: Target) -> None:
    logprobs = torch.tensor([[-0.125, -3.0], [-1.0, -1.0]], device=target.device)
    one = torch.tensor([1], device=target.device)

    def survivals(**rows: torch.Tensor) -> float:
        moved = {name: t.to(target.device) for name, t in rows.items()}
        return expected_accepts(logprobs, one, **moved, backend=target.backend).item() * 65536

    best, other = (oracle_budgeting.survival(int(nats * 65536)) for nats in (0.125, 1.0))
    assert survivals() == best
    assert survivals(log_weights=torch.tensor([0.0, 9.0])) == other
    assert survivals(min_lens=torch.tensor([0, 1])) == other


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_short_floats_count_as_their_float32(dtype: torch.dtype, target: Target) -> None:
    for logprobs in (certain(7, 5).to(dtype), SPECIAL.to(dtype).repeat(3, 1)):
        case = Case("", logprobs)
        sums = sums_of(case)
        check_expected(case.on(target.device), budgets_of(sums, target.device), sums, target.backend)


def test_keys_that_float32_does_not_tell_apart(target: Target) -> None:
    """The kernel's rare path; what is selected there survives with probability 0, what comes before does not."""
    for case in (Case("", far(5, 7, 5)), Case("", far(3, 24, 9)), Case("", torch.cat([coarse(4, 2), far(4, 6, 5)], 1))):
        sums = sums_of(case)
        budgets = torch.tensor([len(sums) * 3 // 4, len(sums) - 2], device=target.device)
        check_expected(case.on(target.device), budgets, sums, target.backend)


@pytest.mark.parametrize(("n", "k"), [(4096, 4), (300, 64), (2049, 5), (65, 129)])
def test_beyond_one_program_triton_refuses_and_auto_takes_torch(n: int, k: int, triton_target: Target) -> None:
    case = Case("", certain(n, k)).on(triton_target.device)
    budgets = torch.tensor([n], device=triton_target.device)
    with pytest.raises(ValueError, match=rf"requests x drafts up to 2048 x 8, .*64 x 256\), got {n} x {k}; 'auto'"):
        expected_accepts(case.logprobs, budgets, backend="triton")
    check_expected(case, budgets, sums_of(case), "auto")


def test_sums_beyond_float32_are_rounded_once() -> None:
    """More accepts than one program holds, and more units than float32 does."""
    logprobs = torch.full((70_000, 1), -0.75)
    survival = oracle_budgeting.survival(int(0.75 * 65536))
    found = expected_accepts(logprobs, torch.tensor([69_999, 70_001]))
    assert found.tolist() == [oracle.float32(survival * count) / 65536 for count in (69_999, 70_000)]


def test_auto_is_torch_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "triton_kernels", lambda stage: pytest.fail("Triton was asked for"))
    assert backend.implementation("expectation", "auto", torch.device("cpu"), 6, 4) is reference
    case = Case("", certain(6, 4))
    check_expected(case, torch.tensor([5]), sums_of(case), "auto")


def test_the_oracle_ranks_as_its_heap_does() -> None:
    for case in itertools.islice(CASES, 0, None, 3):
        keys = case.order_keys()
        costs = oracle.batch_keys(case.logprobs.tolist())
        sums = sums_of(case)
        for budget in some_budgets(len(sums) - 1):
            lens = oracle.greedy(keys, budget)
            kept = [cost for row, n in zip(costs, lens, strict=True) for cost in row[:n]]
            assert sum(map(oracle_budgeting.survival, kept)) == oracle_budgeting.at(sums, budget)
