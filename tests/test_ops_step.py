"""A whole decoding step under torch.compile and torch.export: one graph for all batches, equal to eager."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from stage_calls import BACKEND, INTERPRETED, K, V, leaves, same, seeded
from test_ops import Counter
from torch import Tensor

from tetris_kernels import Accepted, PackedBatch, Selection, accept, pack, select_from_logits

pytestmark = pytest.mark.kernel


class Step(torch.nn.Module):
    """select -> pack -> a stand-in for the target's forward -> accept."""

    def __init__(self, exact: bool = False) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.embedding = torch.nn.Embedding(V, V if exact else 8)
            # Compiled matrix products may round otherwise: left out, the logits are the same bits.
            self.linear = torch.nn.Identity() if exact else torch.nn.Linear(8, V)

    def forward(
        self, draft_logits: Tensor, draft_ids: Tensor, draft_lens: Tensor, uniforms: Tensor, budget: Any, capacity: int
    ) -> tuple[Selection, PackedBatch, Accepted]:
        selection, _ = select_from_logits(draft_logits, draft_ids, budget, draft_lens=draft_lens, backend=BACKEND)
        options: dict[str, Any] = {"capacity": capacity, "draft_lens": draft_lens, "backend": BACKEND}
        packed = pack(selection, draft_ids, draft_ids[:, 0], draft_lens * 3, **options)
        target_logits = self.linear(self.embedding(packed.input_ids)) * 3
        accepted = accept(target_logits, packed, draft_ids, uniforms, draft_logits=draft_logits, backend=BACKEND)
        return selection, packed, accepted


def inputs(n: int, seed: int) -> dict[str, Tensor]:
    generator = seeded(seed)
    return {
        "draft_logits": torch.randn(n, K, V, generator=generator) * 2,
        "draft_ids": torch.randint(0, V, (n, K), generator=generator),
        "draft_lens": torch.randint(-1, K + 2, (n,), generator=generator),
        "uniforms": torch.rand(n, K + 1, generator=generator),
    }


def flat(result: Any) -> list[Tensor]:
    return [leaf.detach() for leaf in leaves(result)]


def test_one_graph_for_all_batches() -> None:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    counter, step = Counter(), Step()
    compiled = torch.compile(step, fullgraph=True, dynamic=True, backend=counter)
    sizes = [(5, 7, 12), (5, 3, 9), (9, 11, 40), (33, 90, 100), (64, 2, 70), (9, 20, 15)]
    # The interpreter takes seconds for a step of a large batch.
    for n, budget, capacity in sizes[1:3] if INTERPRETED else sizes:
        for value in (budget, torch.tensor(budget)):
            batch = inputs(n, seed=n + budget)
            assert same(
                flat(compiled(**batch, budget=value, capacity=capacity)),
                flat(step(**batch, budget=value, capacity=capacity)),
            )
    assert counter.graphs == 2  # one for integers, one for tensors
    assert not torch._dynamo.utils.counters["graph_break"]


def test_static_shapes_compile_once_for_all_values() -> None:
    torch._dynamo.reset()
    counter, step = Counter(), Step()
    compiled = torch.compile(step, fullgraph=True, dynamic=False, backend=counter)
    for budget in (7, -5) if INTERPRETED else (7, 0, 15, 10**6, -5):
        batch = inputs(5, seed=budget)
        value = torch.tensor(budget)
        assert same(flat(compiled(**batch, budget=value, capacity=20)), flat(step(**batch, budget=value, capacity=20)))
    assert counter.graphs == 1


def test_inductor() -> None:
    torch._dynamo.reset()
    step = Step(exact=True)
    compiled = torch.compile(step, fullgraph=True)
    for budget in (7,) if INTERPRETED else (7, 3, 0):
        batch = inputs(5, seed=budget)
        value = torch.tensor(budget)
        assert same(flat(compiled(**batch, budget=value, capacity=20)), flat(step(**batch, budget=value, capacity=20)))


def test_export_with_a_symbolic_batch() -> None:
    class WithRoom(Step):
        def forward(
            self, draft_logits: Tensor, draft_ids: Tensor, draft_lens: Tensor, uniforms: Tensor, budget: Tensor
        ) -> Any:
            # A capacity that is a size of the graph: a torch.SymInt.
            return super().forward(draft_logits, draft_ids, draft_lens, uniforms, budget, uniforms.numel())

    step = WithRoom()
    requests = torch.export.Dim("requests", min=2, max=4096)
    shapes = {name: {0: requests} for name in inputs(5, 0)} | {"budget": None}
    program = torch.export.export(step, (), {**inputs(5, 0), "budget": torch.tensor(7)}, dynamic_shapes=shapes)
    for n, budget in [(6, 7), (2, 1)]:
        batch = {**inputs(n, seed=n), "budget": torch.tensor(budget)}
        assert same(flat(program.module()(**batch)), flat(step(**batch)))


def test_export_with_a_capacity_that_is_data() -> None:
    class Pack(torch.nn.Module):
        def forward(self, lens: Tensor, draft_ids: Tensor, capacity: Tensor) -> PackedBatch:
            # An unbacked torch.SymInt: tracing knows nothing of its value.
            options: dict[str, Any] = {"capacity": capacity.item(), "backend": BACKEND}
            return pack(Selection(lens, lens), draft_ids, draft_ids[:, 0], draft_ids[:, 0], **options)

    lens, draft_ids = torch.tensor([2, 0, 3], dtype=torch.int32), torch.arange(12).view(3, 4)
    program = torch.export.export(Pack(), (lens, draft_ids, torch.tensor(9)))
    for capacity in (9, 0, 1, 20):
        given = (lens, draft_ids, torch.tensor(capacity))
        assert same(flat(program.module()(*given)), flat(Pack()(*given)))
