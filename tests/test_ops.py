"""The operator under everything that traces: opcheck, torch.compile, torch.export, fake tensors, dispatch modes."""

from __future__ import annotations

import os

import pytest
import torch
from stage_calls import FAKE_GPUS
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

import tetris_kernels
from tetris_kernels import Selection, ops, select

BACKEND = "triton" if os.environ.get("TRITON_INTERPRET") == "1" else "auto"
pytestmark = pytest.mark.kernel

OP = torch.ops.tetris_kernels.select.default


def batch(num_requests: int, num_drafts: int = 4, seed: int = 0) -> torch.Tensor:
    return -torch.rand(num_requests, num_drafts, generator=torch.Generator().manual_seed(seed))


def optional(num_requests: int) -> dict[str, torch.Tensor]:
    return {
        "draft_lens": torch.arange(num_requests) % 5,
        "min_lens": torch.ones(num_requests, dtype=torch.int32),
        "max_lens": torch.full((num_requests,), 3),
        "log_weights": torch.linspace(-1, 1, num_requests),
    }


def same(a: Selection, b: Selection) -> bool:
    return torch.equal(a.lens, b.lens) and torch.equal(a.cu_lens, b.cu_lens)


@pytest.mark.parametrize(
    "args",
    [
        (batch(5), None, 7, None, None, None, None, BACKEND),
        (batch(5), None, 10**6, None, None, None, None, BACKEND),
        (batch(5), torch.tensor(7), 0, *optional(5).values(), BACKEND),
        (batch(4, 5).T, torch.tensor([7], dtype=torch.int32), 0, None, None, None, None, BACKEND),
        (batch(5).requires_grad_(), None, 7, None, None, None, optional(5)["log_weights"].requires_grad_(), BACKEND),
        (batch(5).bfloat16(), None, 7, *optional(5).values(), BACKEND),
        (batch(0), None, 7, None, None, None, None, BACKEND),
        (batch(3, 0), None, 7, None, None, None, None, BACKEND),
    ],
    ids=["host", "covering", "full", "transposed", "grad", "bf16", "no requests", "no drafts"],
)
def test_opcheck(args):
    torch.library.opcheck(OP, args)


class Record(TorchDispatchMode):
    """Notes the operators that are called, and calls them."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[object] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.seen.append(func)
        return func(*args, **(kwargs or {}))


@pytest.fixture
def direct_calls(monkeypatch) -> list[torch.Tensor]:
    """The log-probs of calls that do not go through the operator."""
    calls = []
    implementation = ops.select

    def record(logprobs, *rest):
        calls.append(logprobs)
        return implementation(logprobs, *rest)

    monkeypatch.setattr(ops, "select", record)
    return calls


PLAIN = {
    "tensor": batch(5),
    "parameter": torch.nn.Parameter(batch(5)),
    "needs gradients": batch(5).requires_grad_(),
    "not a leaf": batch(5).requires_grad_() * 1,
}


@pytest.mark.parametrize("kind", PLAIN)
def test_plain_tensors_skip_the_operator(kind, direct_calls):
    picked = select(PLAIN[kind], 7, backend=BACKEND)
    assert len(direct_calls) == 1
    assert not picked.lens.requires_grad
    assert same(picked, select(batch(5), 7))


def test_dispatch_modes_see_the_operator(direct_calls):
    with Record() as record:
        recorded = select(batch(5), 7, backend=BACKEND)
    assert OP in record.seen and not direct_calls
    assert same(recorded, select(batch(5), 7))


def test_function_transforms_go_through_the_operator(direct_calls):
    def kept(logprobs):
        return (logprobs * select(logprobs, 7, backend=BACKEND).mask(4)).sum()

    gradient = torch.func.grad(kept)(batch(5))
    assert not direct_calls
    assert torch.equal(gradient, select(batch(5), 7).mask(4).float())


@pytest.mark.parametrize("budget", [2**63, 2**70])
def test_budgets_beyond_an_operator_argument(budget):
    with Record():
        assert select(batch(5), budget, backend=BACKEND).lens.tolist() == [4] * 5


def test_another_default_device_changes_nothing():
    expected = select(batch(5), 7)
    given = batch(5)
    with torch.device("meta"):
        assert same(select(given, 7, backend=BACKEND), expected)


def test_tensor_subclasses_go_through_the_operator():
    class Traced(torch.Tensor):
        calls: list[object] = []  # noqa: RUF012  # shared on purpose: it counts the calls of all instances

        @classmethod
        def __torch_function__(cls, func, types, args=(), kwargs=None):
            cls.calls.append(func)
            return super().__torch_function__(func, types, args, kwargs or {})

    logprobs = batch(5)
    result = select(logprobs.as_subclass(Traced), 7, backend=BACKEND)
    assert any("tetris_kernels" in str(func) for func in Traced.calls)
    assert torch.equal(result.lens.as_subclass(torch.Tensor), select(logprobs, 7).lens)


class Counter:
    """A torch.compile backend that counts the graphs it is given."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, _: list[torch.Tensor]) -> object:
        self.graphs += 1
        return graph.forward


def test_compile_without_graph_breaks_or_recompiles():
    counter = Counter()
    torch._dynamo.reset()

    @torch.compile(fullgraph=True, dynamic=True, backend=counter)
    def step(logprobs, budget, draft_lens):
        picked = select(logprobs, budget, draft_lens=draft_lens, backend=BACKEND)
        return picked.lens + 0, picked.mask(4), picked.indices(16)[0]

    for num_requests, budget in [(5, 7), (5, 3), (9, 11), (33, 90), (64, 2)]:
        logprobs, lens = batch(num_requests, seed=budget), torch.full((num_requests,), 3)
        expected = select(logprobs, budget, draft_lens=lens)
        for value in (budget, torch.tensor(budget)):
            result = step(logprobs, value, lens)
            assert torch.equal(result[0], expected.lens)
            assert torch.equal(result[1], expected.mask(4))
            assert torch.equal(result[2], expected.indices(16)[0])
    assert counter.graphs == 2  # one for integers, one for tensors


def test_compile_with_inductor():
    torch._dynamo.reset()
    step = torch.compile(lambda logprobs, budget: select(logprobs, budget, backend=BACKEND).lens * 2, fullgraph=True)
    for budget in (7, 3, 0):
        assert torch.equal(step(batch(5), torch.tensor(budget)), select(batch(5), budget).lens * 2)


def test_export_with_a_symbolic_batch():
    class Step(torch.nn.Module):
        def forward(self, logprobs, budget):
            return select(logprobs, budget, backend=BACKEND).cu_lens

    requests = torch.export.Dim("requests", min=1, max=4096)
    shapes = {"logprobs": {0: requests}, "budget": None}
    program = torch.export.export(Step(), (batch(5), torch.tensor(7)), dynamic_shapes=shapes)
    for num_requests, budget in [(5, 7), (40, 33), (1, 2)]:
        logprobs = batch(num_requests)
        assert torch.equal(program.module()(logprobs, torch.tensor(budget)), select(logprobs, budget).cu_lens)


def test_export_with_a_symbolic_budget():
    class Step(torch.nn.Module):
        def forward(self, logprobs, draft_ids):
            # A budget that is a size of the graph: a torch.SymInt.
            return select(logprobs, draft_ids.shape[0], backend=BACKEND).lens

    size = torch.export.Dim("size", min=2, max=64)
    shapes = {"logprobs": None, "draft_ids": {0: size}}
    program = torch.export.export(Step(), (batch(5), torch.zeros(7)), dynamic_shapes=shapes)
    for budget in (7, 3, 20):
        assert torch.equal(program.module()(batch(5), torch.zeros(budget)), select(batch(5), budget).lens)


def test_export_with_a_budget_that_is_data():
    class Step(torch.nn.Module):
        def forward(self, logprobs, budget):
            # An unbacked torch.SymInt: tracing knows nothing of its value.
            return select(logprobs, budget.item(), backend=BACKEND).lens

    program = torch.export.export(Step(), (batch(5), torch.tensor(7)))
    for budget in (7, 0, 1, 20):
        assert torch.equal(program.module()(batch(5), torch.tensor(budget)), select(batch(5), budget).lens)


@pytest.mark.parametrize("backend", ["auto", "triton", "torch"])
@pytest.mark.parametrize("device", FAKE_GPUS)
def test_fake_cuda_tensors_cross_the_boundary(backend, device):
    with FakeTensorMode():
        logprobs = torch.empty(6, 4, device=device)
        lens = torch.ones(6, dtype=torch.int64, device=device)
        for budget in (7, torch.empty((), dtype=torch.int32, device=device)):
            picked = select(logprobs, budget, draft_lens=lens, backend=backend)
            assert picked.lens.shape == (6,) and picked.cu_lens.shape == (7,)
            assert picked.lens.dtype == picked.cu_lens.dtype == torch.int32
            assert picked.lens.device == picked.cu_lens.device == torch.device(device)
            assert picked.mask(4).shape == (6, 4) and picked.indices(9)[1].shape == (9,)


def test_meta_tensors_give_shapes():
    picked = torch.ops.tetris_kernels.select(torch.empty(6, 4, device="meta"), None, 7, None, None, None, None, "auto")
    assert picked[0].shape == (6,) and picked[1].shape == (7,)


def test_public_names():
    stages = {"score", "select", "select_from_logits", "expected_accepts", "choose_budget", "pack", "accept"}
    others = {"deadline_preferences", "plan_budget", "update_waited", "waiting_weights", "warmup", "__version__"}
    types = {"Accepted", "PackedBatch", "Plan", "Preferences", "Selection"}
    types |= {"Calibration", "CostTable", "MeanExpectation", "Readback", "Uncalibrated"}
    assert set(tetris_kernels.__all__) == stages | others | types
    assert all(callable(getattr(tetris_kernels, stage)) for stage in stages)
    assert all(hasattr(torch.ops.tetris_kernels, stage) for stage in stages)
