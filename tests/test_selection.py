"""`select` of every backend against the heap of tests/oracle.py: integers, exactly."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import oracle
import pytest
import torch
from cases import (
    BUDGETS,
    CASES,
    DEVICE_BUDGETS,
    HOST_BUDGETS,
    SMALL_BUDGETS,
    Case,
    Target,
    certain,
    coarse,
    copy,
    expected,
    far,
    lens,
    peaked,
    random_case,
    some_budgets,
    whole,
)
from conftest import INTERPRETED, POISON
from torch import Tensor

from tetris_kernels import Selection, backend, select
from tetris_kernels.reference import selection as reference

pytestmark = pytest.mark.usefixtures("poisoned")

# A batch whose drafts are all compared with one another, and one that is searched.
TIED = [
    Case("ranked", coarse(6, 4), draft_lens=lens([4, 2, 0, 9, 4, 3], torch.int64)),
    Case("searched", coarse(6, 5), draft_lens=lens([4, 2, 0, 9, 5, 3], torch.int64)),
]
PLAIN = [Case("plain, ranked", certain(6, 4)), Case("plain, searched", certain(6, 5))]
on_each_path = pytest.mark.parametrize("case", TIED, ids=lambda case: case.name)


def check_outputs(picked: Selection, case: Case) -> None:
    """Types, shapes and devices; fresh memory, and nothing written beside it."""
    n = case.logprobs.shape[0]
    assert type(picked) is Selection
    assert picked.lens.shape == (n,) and picked.cu_lens.shape == (n + 1,)
    storages = [t.untyped_storage().data_ptr() for t in (case.logprobs, *case.rows.values())]
    for output in picked:
        assert type(output) is Tensor and output.dtype == torch.int32 and output.device == case.logprobs.device
        assert output.is_contiguous()
        assert output.untyped_storage().data_ptr() not in storages or output.numel() == 0
        storages.append(output.untyped_storage().data_ptr())
        start = output.storage_offset()
        around = torch.cat([whole(output)[:start], whole(output)[start + output.numel() :]])
        assert (around == POISON).all()


def check(case: Case, budget: Any, keys: list[list[int]], size: int, target: Target) -> None:
    """`case` is on the target's device; `size` is the value of `budget`."""
    picked = case.select(budget, target.backend)
    found = picked.lens.tolist(), picked.cu_lens.tolist()
    assert found == expected(keys, size), (case.name, budget)
    check_outputs(picked, case)


def same_bits(a: Tensor, b: Tensor) -> bool:
    """Equal storages, NaN equal to itself."""
    return torch.equal(whole(a).cpu().view(torch.uint8), whole(b).cpu().view(torch.uint8))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_named_cases(case: Case, target: Target) -> None:
    keys = case.order_keys()
    total = sum(map(len, keys))
    every = case.every_budget or (not INTERPRETED and total <= 64)
    moved = case.on(target.device)
    # The interpreter takes a tenth of a second a call.
    for budget in range(total + 2) if every else some_budgets(total)[INTERPRETED :: 1 + INTERPRETED]:
        # Host and device budgets by turns: what a budget can be has its own test.
        value = budget if budget % 3 else torch.tensor(budget, device=target.device)
        check(moved, value, keys, budget, target)
    for given, used in zip((case.logprobs, *case.rows.values()), (moved.logprobs, *moved.rows.values()), strict=True):
        assert same_bits(given, used)


@pytest.mark.parametrize("kind", BUDGETS)
@pytest.mark.parametrize("case", PLAIN + TIED, ids=lambda case: case.name)
def test_what_a_budget_can_be(kind: str, case: Case, target: Target) -> None:
    keys = case.order_keys()
    total = sum(map(len, keys))
    moved = case.on(target.device)
    for value in (0, total // 2, total - 1, total + 1):
        check(moved, BUDGETS[kind](value, target.device), keys, value, target)


@on_each_path
@pytest.mark.parametrize("kind", HOST_BUDGETS)
@pytest.mark.parametrize("value", [2**31 - 1, 2**31, 2**32, 2**32 + 1, 2**40, 2**63 - 1])
def test_huge_host_budgets_keep_everything(kind: str, value: int, case: Case, target: Target) -> None:
    check(case.on(target.device), HOST_BUDGETS[kind](value, target.device), case.order_keys(), 1000, target)


@on_each_path
@pytest.mark.parametrize("kind", DEVICE_BUDGETS)
@pytest.mark.parametrize("value", [2**31, 2**32, 2**32 + 1, 2**40, 2**63 - 1, -1, -(2**31), -(2**32) + 5, -(2**63)])
def test_device_budgets_are_clamped(kind: str, value: int, case: Case, target: Target) -> None:
    check(case.on(target.device), DEVICE_BUDGETS[kind](value, target.device), case.order_keys(), value, target)


@on_each_path
@pytest.mark.parametrize("kind", SMALL_BUDGETS)
def test_int32_budgets_at_their_ends(kind: str, case: Case, target: Target) -> None:
    check(case.on(target.device), SMALL_BUDGETS[kind](2**31 - 1, target.device), case.order_keys(), 2**31 - 1, target)


@pytest.mark.parametrize("value", [-1, -5, -(2**31)])
def test_negative_int32_device_budgets_count_as_0(value: int, target: Target) -> None:
    budget = torch.tensor([value], dtype=torch.int32, device=target.device)
    for case in PLAIN + TIED:
        check(case.on(target.device), budget, case.order_keys(), 0, target)


@on_each_path
def test_budget_tensor_is_not_changed(case: Case, target: Target) -> None:
    for value in (-(2**40), -1, 5, 2**40):
        budget = torch.tensor([7, value, 7], device=target.device)
        case.on(target.device).select(budget[1:2], target.backend)
        assert budget.tolist() == [7, value, 7]


@pytest.mark.kernel
@pytest.mark.skipif(not INTERPRETED, reason="the interpreter can be told to look for overflows")
@pytest.mark.parametrize("case", [*TIED, *(case for case in CASES if "weights" in case.name)], ids=lambda c: c.name)
def test_integers_do_not_overflow(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    """In Triton's debug mode that would stop the kernel, and on a GPU all that comes after it."""
    from triton.runtime.interpreter import interpreter_builder

    monkeypatch.setattr(interpreter_builder, "options", replace(interpreter_builder.options, debug=True))
    keys = case.order_keys()
    budget = sum(map(len, keys)) // 2
    assert case.select(budget, "triton").lens.tolist() == oracle.greedy(keys, budget)


@pytest.mark.parametrize("sweep", range(20))
def test_random_batches(sweep: int, target: Target) -> None:
    count = 10 if INTERPRETED else 200
    for seed in range(sweep * count, (sweep + 1) * count):
        # Long rows are another code path of the kernel, and slow to interpret.
        case = random_case(seed, *((5, 40) if seed % 10 == 9 else (9, 9)))
        keys = case.order_keys()
        total = sum(map(len, keys))
        moved = case.on(target.device)
        budget = (seed * 7919) % (total + 2)
        kind = list(BUDGETS)[seed % len(BUDGETS)]
        check(moved, BUDGETS[kind](budget, target.device), keys, budget, target)


# At least one for each bucket of the kernel; the last six fill theirs to the last row and draft.
SIZES = [(7, 4), (20, 6), (64, 8), (61, 13), (40, 30), (200, 6), (256, 11), (700, 7), (3000, 3), (2001, 5)]
SIZES += [(4096, 4), (2048, 8), (1024, 16), (512, 32), (256, 64), (128, 128), (64, 256)]


def sized(n: int, k: int, kind: str) -> Case:
    """A batch of that shape for each of the kernel's kinds."""
    if kind == "plain":
        return Case(f"{n}x{k}", certain(n, k, seed=n))
    floors = torch.arange(n) % 3
    if kind == "half":
        return Case(f"{n}x{k} half", certain(k, n, seed=n).bfloat16().T, min_lens=floors)
    weights = torch.linspace(-2, 2, n)
    return Case(f"{n}x{k} full", peaked(n, k, seed=n), k - floors, floors.int(), k - floors.flip(0), weights)


@pytest.mark.parametrize("kind", ["plain", "full", "half"])
@pytest.mark.parametrize(("n", "k"), SIZES)
def test_large_batches(n: int, k: int, kind: str, target: Target) -> None:
    case = sized(n, k, kind)
    keys = case.order_keys()
    total = sum(map(len, keys))
    moved = case.on(target.device)
    for budget in (total // 3,) if INTERPRETED and n * k >= 2**14 else (total // 3, 2 * total // 3):
        check(moved, budget, keys, budget, target)


@pytest.mark.parametrize(("n", "k"), [(4096, 4), (1024, 16), (512, 32), (64, 256)])
def test_large_batches_of_ties(n: int, k: int, target: Target) -> None:
    for logprobs in (torch.zeros(n, k), coarse(n, k, seed=k) * 8):
        case = Case(f"{n}x{k}", logprobs)
        check(case.on(target.device), n * k // 2 + 1, case.order_keys(), n * k // 2 + 1, target)


def test_large_keys_in_a_large_batch(target: Target) -> None:
    for case in (Case("", far(1024, 8, 5)), Case("", far(64, 40, 9), log_weights=torch.linspace(-500, 500, 64))):
        budget = case.logprobs.numel() * 3 // 4
        check(case.on(target.device), budget, case.order_keys(), budget, target)


def test_sizes_reach_every_bucket_and_kind() -> None:
    kernels = pytest.importorskip("tetris_kernels.kernels.selection")
    assert {kernels.bucket(n, k) for n, k in SIZES} == set(kernels.BUCKETS)
    kinds = [sized(4, 3, kind) for kind in kernels._KINDS]
    assert [kernels._kind(c.logprobs.dtype, *c.rows.values()) for c in kinds] == list(kernels._KINDS)


def test_packed_means_aligned_pieces_of_four() -> None:
    launching = pytest.importorskip("tetris_kernels.kernels.launching")
    packed = [case for case in CASES if launching.is_packed(case.logprobs)]
    assert {"fp16, packed", "bf16, packed", "middle of a wide row", "one row for all"} <= {case.name for case in packed}
    for case in packed:
        x = case.logprobs
        for row in x:
            # An interpreter loads from any address; a GPU's vector load does not.
            pointers = [row[j:].data_ptr() for j in range(x.shape[1])]
            assert len(pointers) % 4 == 0
            assert all(pointer % (4 * x.element_size()) == 0 for pointer in pointers[::4])
            assert all(b - a == x.element_size() for a, b in itertools.pairwise(pointers))


def test_triton_agrees_with_torch_on_the_device(triton_target: Target) -> None:
    for seed in range(20):
        case = random_case(10_000 + seed, 300, 12).on(triton_target.device)
        budget = (seed * 7919) % (case.logprobs.numel() + 1)
        ours, theirs = case.select(budget, "triton"), case.select(budget, "torch")
        assert torch.equal(ours.lens, theirs.lens) and torch.equal(ours.cu_lens, theirs.cu_lens)


@pytest.mark.parametrize(("n", "k"), [(4097, 4), (300, 64), (2049, 5), (65, 129)])
def test_beyond_one_program_triton_refuses_and_auto_takes_torch(n: int, k: int, triton_target: Target) -> None:
    case = Case("", certain(n, k))
    moved = case.on(triton_target.device)
    with pytest.raises(ValueError, match=rf"requests x drafts up to 4096 x 4, .*64 x 256\), got {n} x {k}; 'auto'"):
        moved.select(n, "triton")
    check(moved, n, case.order_keys(), n, Target("auto", triton_target.device))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_torch_operations_that_devices_get(case: Case) -> None:
    """On CPU tensors, which get numpy otherwise: a session without a GPU would not see them."""
    keys = case.order_keys()
    rows = [case.rows.get(name) for name in ("draft_lens", "min_lens", "max_lens", "log_weights")]
    for budget in some_budgets(sum(map(len, keys))):
        for given in ((None, budget), (torch.tensor([budget]), 0)):
            lens, cu_lens = reference.select_on_device(case.logprobs, *given, *rows)
            assert (lens.tolist(), cu_lens.tolist()) == expected(keys, budget), budget


def test_auto_is_torch_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    case = PLAIN[0]
    monkeypatch.setattr(backend, "triton_kernels", lambda stage: pytest.fail("Triton was asked for"))
    assert backend.implementation("selection", "auto", case.logprobs.device, *case.logprobs.shape) is reference
    picked = select(case.logprobs, 7)
    assert picked.lens.tolist() == oracle.greedy(case.order_keys(), 7)


def test_copies_keep_strides_and_offsets() -> None:
    for case in CASES:
        moved = copy(case.logprobs, "cpu")
        assert (moved.stride(), moved.storage_offset()) == (case.logprobs.stride(), case.logprobs.storage_offset())
        assert moved.data_ptr() != case.logprobs.data_ptr() or moved.numel() == 0
