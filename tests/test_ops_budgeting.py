"""The operators of expected_accepts and choose_budget: opcheck, torch.compile, torch.export, fake tensors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from stage_calls import BACKEND, FAKE_GPUS, INTERPRETED, choose_tensors, expect_tensors, run_choose, run_expect
from test_ops import Counter
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from tetris_kernels import choose_budget, expected_accepts, select

pytestmark = pytest.mark.kernel

PREFERENCES = ("draft_lens", "min_lens", "max_lens", "log_weights")


def expect_args(tensors: dict[str, Tensor]) -> tuple[Any, ...]:
    """The operator's arguments, in its order."""
    return *(tensors[name] for name in ("draft_logprobs", "budgets")), *map(tensors.get, PREFERENCES), BACKEND


def choose_args(tensors: dict[str, Tensor], argmax: bool = False, factor: float = 1.0) -> tuple[Any, ...]:
    first = (tensors[name] for name in ("draft_logprobs", "tokens", "seconds"))
    return *first, tensors.get("requests"), 5, argmax, factor, *map(tensors.get, PREFERENCES), BACKEND


def least(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t for name, t in tensors.items() if name not in (*PREFERENCES, "requests")}


def with_grad(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: t.clone().requires_grad_() if t.is_floating_point() else t for name, t in tensors.items()}


EXPECTS = {
    "all": expect_args(expect_tensors()),
    "least": expect_args(least(expect_tensors())),
    "int32": expect_args(expect_tensors() | {"budgets": torch.tensor([3, 1], dtype=torch.int32)}),
    "strided": expect_args(expect_tensors() | {"draft_logprobs": -torch.rand(3, 5).T, "budgets": torch.arange(9)[::2]}),
    "bf16": expect_args(expect_tensors(dtype=torch.bfloat16)),
    "grad": expect_args(with_grad(expect_tensors())),
    "no budgets": expect_args(expect_tensors() | {"budgets": torch.arange(0)}),
    "no requests": expect_args(expect_tensors(0)),
    "no drafts": expect_args(expect_tensors(3, 0)),
}
CHOICES = {
    "all": choose_args(choose_tensors()),
    "least": choose_args(least(choose_tensors()), factor=1.02),
    "argmax": choose_args(choose_tensors(), argmax=True),
    "int32": choose_args(choose_tensors() | {"tokens": torch.tensor([5, 6, 9, 20], dtype=torch.int32)}),
    "fp16": choose_args(choose_tensors(dtype=torch.float16)),
    "grad": choose_args(with_grad(choose_tensors())),
    "no requests": choose_args(choose_tensors(0)),
    "no drafts": choose_args(choose_tensors(3, 0)),
}


@pytest.mark.parametrize("kind", EXPECTS)
def test_opcheck_of_expected_accepts(kind: str) -> None:
    torch.library.opcheck(torch.ops.tetris_kernels.expected_accepts.default, EXPECTS[kind])


@pytest.mark.parametrize("kind", CHOICES)
def test_opcheck_of_choose_budget(kind: str) -> None:
    torch.library.opcheck(torch.ops.tetris_kernels.choose_budget.default, CHOICES[kind])


def step(logprobs: Tensor, tokens: Tensor, seconds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A budget chosen and spent, and what to expect of others; as many requests as rows."""
    budget = choose_budget(logprobs, tokens, seconds, backend=BACKEND)
    return (
        budget + 0,
        select(logprobs, budget, backend=BACKEND).lens,
        expected_accepts(logprobs, tokens, backend=BACKEND),
    )


def inputs(n: int) -> tuple[Tensor, Tensor, Tensor]:
    logprobs = -torch.rand(n, 4, generator=torch.Generator().manual_seed(n))
    return logprobs, n + torch.tensor([0, n, 2 * n, 4 * n]), torch.tensor([1.0, 1.2, 1.5, 2.5])


def same(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


def test_one_graph_for_all_batches() -> None:
    torch._dynamo.reset()
    counter = Counter()
    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend=counter)
    for n in (5, 9) if INTERPRETED else (5, 9, 33, 64):
        assert same(compiled(*inputs(n)), step(*inputs(n)))
    assert counter.graphs == 1


def test_inductor() -> None:
    torch._dynamo.reset()
    assert same(torch.compile(step, fullgraph=True)(*inputs(6)), step(*inputs(6)))


def test_export_with_a_symbolic_batch() -> None:
    class Step(torch.nn.Module):
        def forward(self, logprobs: Tensor, tokens: Tensor, seconds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return step(logprobs, tokens, seconds)

    shapes = {"logprobs": {0: torch.export.Dim("requests", min=2, max=4096)}, "tokens": None, "seconds": None}
    program = torch.export.export(Step(), inputs(5), dynamic_shapes=shapes)
    for n in (2, 7):
        assert same(program.module()(*inputs(n)), step(*inputs(n)))


def on(device: str, tensors: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """Tensors of these shapes."""
    return {name: torch.empty(t.shape, dtype=t.dtype, device=device) for name, t in tensors().items()}


@pytest.mark.parametrize("backend", ["auto", "triton", "torch"])
@pytest.mark.parametrize("device", FAKE_GPUS)
def test_fake_cuda_tensors_cross_the_boundary(backend: str, device: str) -> None:
    with FakeTensorMode():
        expected = run_expect(on(device, expect_tensors), backend=backend)
        budget = run_choose(on(device, choose_tensors), backend=backend)
    assert expected.shape == (4,) and expected.dtype == torch.float32
    assert budget.shape == () and budget.dtype == torch.int32
    assert expected.device == budget.device == torch.device(device)


def test_meta_tensors_give_shapes() -> None:
    meta = {name: t.to("meta") for name, t in choose_tensors().items()}
    assert (
        run_choose(meta | {"requests": torch.empty((), dtype=torch.int32, device="meta")}, backend="auto").shape == ()
    )
