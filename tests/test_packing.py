"""`pack` of every backend against the lists of tests/oracle_packing.py: exactly."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from cases import Target, certain, lens, whole
from conftest import INTERPRETED, POISON
from hypothesis import given
from hypothesis import strategies as st
from packing_cases import CAPACITIES, CASES, Case, batch, drafts, random_case, some_capacities
from torch import Tensor

from tetris_kernels import PackedBatch, backend, pack, select
from tetris_kernels.reference import packing as reference

pytestmark = pytest.mark.usefixtures("poisoned")

DTYPES = {"input_ids": torch.int64, "position_ids": torch.int64, "overflow": torch.bool}
RAGGED = batch(7, 4, 50, context_lens=lens([3, -1, 0, 9, -5, 7, 1]), draft_lens=lens([4, 4, 2, 3, 0, -1, 9]))


def check_outputs(packed: PackedBatch, case: Case, capacity: int) -> None:
    """Types, shapes and devices; fresh memory, and nothing written beside it."""
    n = case.draft_ids.shape[0]
    assert type(packed) is PackedBatch
    shapes = {"cu_seqlens": (n + 1,), "lens": (n,), "draft_lens": (n,), "overflow": ()}
    storages = [t.untyped_storage().data_ptr() for t in case.tensors.values()]
    for name, output in packed._asdict().items():
        assert type(output) is Tensor and output.dtype == DTYPES.get(name, torch.int32), name
        assert output.shape == shapes.get(name, (capacity,)), name
        assert output.device == case.draft_ids.device and output.is_contiguous()
        assert output.untyped_storage().data_ptr() not in storages or output.numel() == 0
        storages.append(output.untyped_storage().data_ptr())
        start = output.storage_offset()
        around = torch.cat([whole(output)[:start], whole(output)[start + output.numel() :]])
        assert torch.equal(around, torch.full_like(around, POISON)), name


def check(case: Case, capacity: Any, target: Target) -> None:
    """`case` is on the target's device."""
    packed = case.pack(capacity, target.backend)
    size = int(capacity.__index__())
    found = {name: output.tolist() for name, output in packed._asdict().items()}
    assert found == case.expected(size), (case.name, size)
    check_outputs(packed, case, size)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_named_cases(case: Case, target: Target) -> None:
    moved = case.on(target.device)
    for capacity in some_capacities(case.num_tokens()):
        check(moved, capacity, target)
    for name, given_tensor in case.tensors.items():
        assert torch.equal(whole(given_tensor), whole(moved.tensors[name]).cpu())


@pytest.mark.parametrize("case", [RAGGED, batch(4, 4, 51), batch(33, 1, 52)], ids=["ragged", "plain", "programs"])
def test_every_capacity(case: Case, target: Target) -> None:
    moved = case.on(target.device)
    for capacity in range(case.num_tokens() + 3):
        check(moved, capacity, target)


@pytest.mark.parametrize("kind", CAPACITIES)
def test_what_a_capacity_can_be(kind: str, target: Target) -> None:
    for capacity in (0, 5, 30):
        check(RAGGED.on(target.device), CAPACITIES[kind](capacity), target)


@pytest.mark.parametrize("capacity", [1023, 1024, 1025, 2047, 2049, 5000])
@pytest.mark.parametrize("n", [0, 1, 40, 300])
def test_much_padding(n: int, capacity: int, target: Target) -> None:
    check(batch(n, 4, n, pad_id=9).on(target.device), capacity, target)


@pytest.mark.parametrize(("n", "k"), [(1024, 4), (1025, 2), (2049, 3), (4096, 8), (5000, 5), (300, 256)])
def test_large_batches(n: int, k: int, target: Target) -> None:
    sitting = torch.arange(n) % 7 == 3
    case = batch(n, k, n + k, context_lens=(torch.arange(n) * 3).masked_fill(sitting, -1))
    total = case.num_tokens()
    moved = case.on(target.device)
    for capacity in (total,) if INTERPRETED else (total // 2, total, total + 5):
        check(moved, capacity, target)


@pytest.mark.parametrize("sweep", range(10))
def test_random_batches(sweep: int, target: Target) -> None:
    count = 10 if INTERPRETED else 100
    for seed in range(sweep * count, (sweep + 1) * count):
        case = random_case(seed, *((70, 40) if seed % 10 == 9 else (9, 9)))
        capacities = some_capacities(case.num_tokens())
        check(case.on(target.device), capacities[seed % len(capacities)], target)


@pytest.mark.parametrize("context", [2**31 - 1, 2**31, 2**32 - 1, 2**32 + 5, 2**62])
def test_positions_have_64_bits(context: int, target: Target) -> None:
    case = batch(3, 3, 53, lens=lens([3, 0, 2]), context_lens=lens([context] * 3, torch.int64))
    check(case.on(target.device), 12, target)


def test_a_smaller_batch_leaves_nothing_of_a_larger_one(triton_target: Target, monkeypatch: pytest.MonkeyPatch) -> None:
    """A captured graph writes to the same memory at every replay."""
    large, small = batch(40, 4, 54, lens=lens([4] * 40)), batch(40, 4, 55, context_lens=lens([-1, 3, -1, 0] * 10))
    outputs = list(large.on(triton_target.device).pack(200, triton_target.backend))
    moved = small.on(triton_target.device)

    new_empty = Tensor.new_empty

    def reuse(self: Tensor, size: Any, **options: Any) -> Tensor:
        if "device" in options:  # not of the library: the interpreter's
            return new_empty(self, size, **options)
        shape = torch.Size([size] if isinstance(size, int) else size)
        return outputs.pop(next(i for i, t in enumerate(outputs) if (t.shape, t.dtype) == (shape, options["dtype"])))

    with monkeypatch.context() as patch:
        patch.setattr(Tensor, "new_empty", reuse)
        packed = moved.pack(200, triton_target.backend)
    assert not outputs
    assert {name: output.tolist() for name, output in packed._asdict().items()} == small.expected(200)


def test_the_drafts_of_a_selection_come_in_the_order_of_its_indices(target: Target) -> None:
    n, k = 33, 6
    logprobs = certain(n, k).to(target.device)
    for budget in (0, 1, 50, n * k):
        selection = select(logprobs, budget, backend=target.backend)
        context_lens = torch.arange(n, device=target.device) * 5
        ids = drafts(n, k).to(target.device)
        options: dict[str, Any] = {"capacity": n + budget + 3, "backend": target.backend}
        packed = pack(selection, ids, ids[:, 0] - 1, context_lens, **options)
        assert torch.equal(packed.lens, selection.lens) and not packed.overflow
        assert torch.equal(packed.cu_seqlens, selection.cu_lens + torch.arange(n + 1, device=target.device))

        request, position = (index.tolist() for index in selection.indices(budget))
        kept = range(int(packed.cu_seqlens[-1]))
        starts = packed.cu_seqlens.tolist()
        slots = [slot for slot in kept if slot not in starts]
        assert packed.request_ids[slots].tolist() == request
        assert (packed.position_ids[slots] - packed.request_ids[slots] * 5 - 1).tolist() == position
        assert packed.input_ids[slots].tolist() == ids[request, position].tolist()
        anchors = starts[:-1]
        assert packed.input_ids[anchors].tolist() == (ids[:, 0] - 1).tolist()


def test_requests_and_budget_are_always_enough(target: Target) -> None:
    logprobs = certain(9, 5).to(target.device)
    ids = drafts(9, 5).to(target.device)
    for budget in range(12):
        selection = select(logprobs, budget, backend=target.backend)
        packed = pack(selection, ids, ids[:, 0], ids[:, 0], capacity=9 + budget, backend=target.backend)
        assert not packed.overflow and packed.cu_seqlens[-1] == 9 + budget
        assert pack(selection, ids, ids[:, 0], ids[:, 0], capacity=8 + budget, backend=target.backend).overflow


@st.composite
def batches(draw: st.DrawFn) -> Case:
    n, k = draw(st.integers(0, 6)), draw(st.integers(0, 6))
    ints = st.sampled_from([torch.int32, torch.int64])

    def column(low: int, high: int, dtype: torch.dtype) -> Tensor:
        return lens(draw(st.lists(st.integers(low, high), min_size=n, max_size=n)), dtype)

    ids = drafts(n, k, draw(ints))
    context_lens, draft_lens = column(-2, 9, draw(ints)), column(-1, k + 1, draw(ints))
    kept = draw(st.none() | st.just(draft_lens))
    return Case("drawn", column(-1, k + 1, torch.int32), ids, -ids.new_ones(n), context_lens, kept, 3)


@given(case=batches(), capacity=st.integers(0, 50))
def test_any_batch(target: Target, case: Case, capacity: int) -> None:
    check(case.on(target.device), capacity, target)


@given(case=batches(), capacity=st.integers(0, 50), less=st.integers(0, 50))
def test_a_smaller_capacity_is_a_cut(target: Target, case: Case, capacity: int, less: int) -> None:
    less = min(less, capacity)
    moved = case.on(target.device)
    large, small = moved.pack(capacity, target.backend), moved.pack(less, target.backend)
    for name in ("input_ids", "position_ids", "request_ids"):
        assert torch.equal(getattr(small, name), getattr(large, name)[:less])
    assert torch.equal(small.cu_seqlens, large.cu_seqlens.clamp(max=less))
    assert (small.lens <= large.lens).all() and torch.equal(small.draft_lens, large.draft_lens)


def test_triton_agrees_with_torch_on_the_device(triton_target: Target) -> None:
    for seed in range(20):
        case = random_case(10_000 + seed, 300, 12).on(triton_target.device)
        capacity = (seed * 7919) % 2000
        ours, theirs = case.pack(capacity, "triton"), case.pack(capacity, "torch")
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


def test_auto_is_torch_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "triton_kernels", lambda stage: pytest.fail("Triton was asked for"))
    assert backend.implementation("packing", "auto", RAGGED.lens.device) is reference
    check(RAGGED, 20, Target("auto", "cpu"))


def test_the_cases_reach_every_kernel() -> None:
    kernels = pytest.importorskip("tetris_kernels.kernels.packing")
    dtypes = {case.draft_ids.dtype for case in CASES}
    assert {kernels._variant(dtype).name for dtype in dtypes} == {variant.name for variant in kernels.variants()}
