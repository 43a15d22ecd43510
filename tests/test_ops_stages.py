"""The operators of score, select_from_logits, pack and accept: opcheck, fake tensors, and who sees them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from stage_calls import (
    BACKEND,
    CALLS,
    CAPACITY,
    FAKE_GPUS,
    K,
    N,
    V,
    accept_tensors,
    draft_tensors,
    leaves,
    pack_tensors,
    run_accept,
    run_select,
    same,
    score_tensors,
    select_tensors,
)
from test_ops import Record
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tetris_kernels import accept, ops, pack, score, select_from_logits

pytestmark = pytest.mark.kernel

HALVES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def score_args(tensors: dict[str, Tensor], kind: str = "token", host_temperature: float = 1.0) -> tuple[Any, ...]:
    """The operator's arguments, in its order."""
    get = tensors.get
    return (
        *(get("draft_logits"), get("draft_ids"), kind, get("temperature"), host_temperature),
        *(get("draft_lens"), BACKEND),
    )


def select_args(tensors: dict[str, Tensor], kind: str = "token", host_budget: int = 7) -> tuple[Any, ...]:
    names = ("draft_lens", "min_lens", "max_lens", "log_weights")
    *first, _, _ = score_args(tensors, kind)
    return (*first, tensors.get("budget"), host_budget, *map(tensors.get, names), BACKEND)


def pack_args(tensors: dict[str, Tensor], capacity: int = CAPACITY, pad_id: int = 0) -> tuple[Any, ...]:
    first = (tensors[name] for name in ("lens", "draft_ids", "anchor_ids", "context_lens"))
    return (*first, capacity, tensors.get("draft_lens"), pad_id, BACKEND)


def accept_args(tensors: dict[str, Tensor], host_temperature: float = 1.0, coupled: bool = True) -> tuple[Any, ...]:
    names = ("target_logits", "request_ids", "cu_seqlens", "lens", "draft_lens", "draft_ids", "uniforms")
    optional = (tensors.get("draft_logits"), tensors.get("temperature"))
    return (*map(tensors.get, names), *optional, host_temperature, coupled, BACKEND)


def without(tensors: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in tensors.items() if name not in names}


def with_grad(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.clone().requires_grad_() if t.is_floating_point() else t for name, t in tensors.items()}


def transposed(tensors: dict[str, Tensor], *names: str) -> dict[str, Tensor]:
    """The same values, with the strides of what was made along the first two axes the other way round."""
    return tensors | {name: tensors[name].transpose(0, 1).contiguous().transpose(0, 1) for name in names}


NO_TEMPERATURE = without(accept_tensors(), "temperature")
SCORES = {
    "all": score_args(score_tensors()),
    "least": score_args(draft_tensors(), "top", 0.7),
    "greedy": score_args(draft_tensors(), host_temperature=0.0),
    "int32": score_args(score_tensors() | {"draft_ids": draft_tensors()["draft_ids"].int()}),
    "strided": score_args(transposed(score_tensors(), "draft_logits", "draft_ids")),
    "grad": score_args(with_grad(score_tensors()), "collision"),
    "no requests": score_args(score_tensors(0)),
    "no drafts": score_args(score_tensors(3, 0)),
} | {name: score_args(score_tensors(dtype=dtype), "collision") for name, dtype in HALVES.items()}
SELECTS = {
    "all": select_args(select_tensors()),
    "least": select_args(draft_tensors(), "top"),
    "covering": select_args(draft_tensors(), host_budget=10**6),
    "grad": select_args(with_grad(select_tensors()), "collision"),
    "strided": select_args(transposed(select_tensors(), "draft_logits", "draft_ids")),
    "no requests": select_args(select_tensors(0)),
    "no drafts": select_args(select_tensors(3, 0)),
} | {name: select_args(select_tensors(dtype=dtype)) for name, dtype in HALVES.items()}
PACKS = {
    "all": pack_args(pack_tensors(), pad_id=7),
    "least": pack_args(without(pack_tensors(), "draft_lens")),
    "int32": pack_args(pack_tensors(dtype=torch.int32)),
    "int32 contexts": pack_args(pack_tensors() | {"context_lens": torch.arange(N, dtype=torch.int32) - 1}),
    "strided": pack_args(transposed(pack_tensors(), "draft_ids")),
    "overflow": pack_args(pack_tensors(), capacity=3),
    "no slots": pack_args(pack_tensors(), capacity=0),
    "no requests": pack_args(pack_tensors(0)),
    "no drafts": pack_args(pack_tensors(3, 0)),
}
ACCEPTS = {
    "all": accept_args(accept_tensors()),
    "least": accept_args(without(NO_TEMPERATURE, "draft_logits"), coupled=False),
    "greedy": accept_args(NO_TEMPERATURE, host_temperature=0.0),
    "int32": accept_args(accept_tensors() | {"draft_ids": accept_tensors()["draft_ids"].int()}),
    "strided": accept_args(transposed(accept_tensors(), "target_logits", "draft_logits", "draft_ids", "uniforms")),
    "grad": accept_args(with_grad(accept_tensors())),
    "no requests": accept_args(accept_tensors(0)),
    "no drafts": accept_args(accept_tensors(3, 0)),
} | {name: accept_args(accept_tensors(dtype=dtype)) for name, dtype in HALVES.items()}
ARGUMENTS = {"score": SCORES, "select_from_logits": SELECTS, "pack": PACKS, "accept": ACCEPTS}


@pytest.mark.parametrize(("stage", "kind"), [(stage, kind) for stage, kinds in ARGUMENTS.items() for kind in kinds])
def test_opcheck(stage: str, kind: str) -> None:
    torch.library.opcheck(getattr(torch.ops.tetris_kernels, stage).default, ARGUMENTS[stage][kind])


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The stages that were called past their operators."""
    calls: list[str] = []

    def recorded(stage: str, run: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args: (calls.append(stage), run(*args))[1]

    for stage in CALLS:
        monkeypatch.setattr(ops, stage, recorded(stage, getattr(ops, stage)))
    return calls


@pytest.mark.parametrize("stage", CALLS)
def test_plain_tensors_skip_the_operator(stage: str, direct: list[str]) -> None:
    run, tensors = CALLS[stage]
    for given in (tensors(), with_grad(tensors())):
        direct.clear()
        result = run(given)
        assert direct[0] == stage
        assert not any(output.requires_grad for output in leaves(result))
    assert same(result, run(tensors()))


@pytest.mark.parametrize("stage", CALLS)
def test_results_of_the_operator_need_no_gradients(stage: str) -> None:
    run, tensors = CALLS[stage]
    with Record():
        result = run(with_grad(tensors()))
    assert not any(output.requires_grad for output in leaves(result))


@pytest.mark.parametrize("stage", CALLS)
def test_dispatch_modes_see_the_operator(stage: str, direct: list[str]) -> None:
    run, tensors = CALLS[stage]
    with Record() as record:
        recorded = run(tensors())
    assert getattr(torch.ops.tetris_kernels, stage).default in record.seen
    assert stage not in direct
    assert same(recorded, run(tensors()))


class Traced(torch.Tensor):
    """A subclass that only has a type of its own."""


@pytest.mark.parametrize(("stage", "name"), [(stage, name) for stage, call in CALLS.items() for name in call[1]()])
def test_one_subclass_among_the_tensors_is_seen(stage: str, name: str, direct: list[str]) -> None:
    run, tensors = CALLS[stage]
    given = tensors()
    result = run(given | {name: given[name].as_subclass(Traced)})
    assert stage not in direct
    plain = [output.as_subclass(Tensor) for output in leaves(result)]
    assert same(plain, leaves(run(given)))


@pytest.mark.filterwarnings("error:.*an autograd kernel was not registered")
def test_gradients_flow_past_what_is_chosen(direct: list[str]) -> None:
    tensors = draft_tensors()

    def value(draft_logits: Tensor) -> Tensor:
        selection, scores = run_select(tensors | {"draft_logits": draft_logits})
        return (draft_logits.sum(2) * selection.mask(K)).sum() + scores.sum()

    gradient = torch.func.grad(value)(tensors["draft_logits"])
    assert "select_from_logits" not in direct
    mask = run_select(tensors)[0].mask(K)
    assert torch.equal(gradient, mask[:, :, None].expand(N, K, V).float())


def test_gradients_flow_past_accept(direct: list[str]) -> None:
    tensors = accept_tensors()

    def value(target_logits: Tensor) -> Tensor:
        accepted = run_accept(tensors | {"target_logits": target_logits})
        return accepted.counts.sum() * target_logits.sum()

    gradient = torch.func.grad(value)(tensors["target_logits"])
    assert "accept" not in direct
    assert (gradient == run_accept(tensors).counts.sum()).all()


@pytest.mark.parametrize("backend", ["auto", "triton", "torch"])
@pytest.mark.parametrize("device", FAKE_GPUS)
def test_fake_cuda_tensors_cross_the_boundary(backend: str, device: str) -> None:
    with FakeTensorMode():
        ids, contexts = (torch.empty(shape, dtype=torch.int64, device=device) for shape in ((6, 4), 6))
        budget = torch.empty(1, dtype=torch.int32, device=device)
        draft_logits = torch.empty(6, 4, 100, dtype=torch.bfloat16, device=device)
        target_logits = torch.empty(17, 100, dtype=torch.float16, device=device)
        options: dict[str, Any] = {"temperature": torch.empty(6, device=device), "backend": backend}
        scores = score(draft_logits, ids, draft_lens=contexts, **options)
        selection, more = select_from_logits(draft_logits, ids, budget, **options)
        packed = pack(selection, ids, contexts, contexts, capacity=17, backend=backend)
        uniforms = torch.empty(6, 5, device=device)
        accepted = accept(target_logits, packed, ids, uniforms, draft_logits=draft_logits, **options)
    found = [scores, more, *selection, *packed, *accepted]
    assert all(tensor.device == torch.device(device) for tensor in found)
    assert [(list(tensor.shape), str(tensor.dtype).removeprefix("torch.")) for tensor in found] == [
        *[([6, 4], "float32")] * 2,
        *[([6], "int32"), ([7], "int32")],
        *[([17], "int64"), ([17], "int64"), ([17], "int32"), ([7], "int32")],
        *[([6], "int32"), ([6], "int32"), ([], "bool")],
        *[([6, 5], "int64"), ([6], "int32"), ([6], "bool")],
    ]
