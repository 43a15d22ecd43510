"""A whole step on a GPU: no synchronisation, one CUDA graph, the same as on the CPU. Skipped without a GPU."""

from __future__ import annotations

import pytest
import torch

from tetris_kernels import accept, choose_budget, expected_accepts, pack, select, select_from_logits, warmup

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or ROCm GPU here")

NUM_REQUESTS, NUM_DRAFTS, VOCABULARY, CAPACITY = 37, 6, 20000, 128


class Inputs:
    """Fixed buffers that are filled anew, as a captured graph needs them."""

    def __init__(self, seed: int, device: str) -> None:
        generator = torch.Generator().manual_seed(seed)
        # A stand-in for the target: logits by the last token. Far apart, so that hardly a decision hangs on the last
        # bits, which differ between backends.
        table = torch.randn(64, VOCABULARY, generator=generator) * 3
        self.table = table.bfloat16().to(device)
        anchor_ids = last = torch.randint(VOCABULARY, (NUM_REQUESTS,), generator=generator)
        logits, ids = [], []
        for _ in range(NUM_DRAFTS):
            logits.append(table[last % 64] + 0.3 * torch.randn(NUM_REQUESTS, VOCABULARY, generator=generator))
            other = torch.randint(VOCABULARY, last.shape, generator=generator)
            last = torch.where(torch.rand(last.shape, generator=generator) < 0.8, logits[-1].argmax(-1), other)
            ids.append(last)
        self.draft_logits = torch.stack(logits, 1).bfloat16().to(device)
        self.draft_ids = torch.stack(ids, 1).to(device)
        self.anchor_ids = anchor_ids.to(device)
        self.context_lens = torch.randint(-1, 50, (NUM_REQUESTS,), generator=generator).to(device)
        self.draft_lens = torch.randint(NUM_DRAFTS + 1, (NUM_REQUESTS,), generator=generator).to(device)
        self.budget = torch.randint(CAPACITY - NUM_REQUESTS, (1,), generator=generator).to(device)
        self.temperature = (torch.arange(NUM_REQUESTS) % 2).float().to(device)
        self.uniforms = torch.rand(NUM_REQUESTS, NUM_DRAFTS + 1, generator=generator).to(device)

    def copy_(self, other: Inputs) -> None:
        for name, values in vars(self).items():
            values.copy_(getattr(other, name))


def step(x: Inputs, backend: str):
    selection, scores = select_from_logits(
        x.draft_logits, x.draft_ids, x.budget, draft_lens=x.draft_lens, backend=backend
    )
    packed = pack(
        selection,
        x.draft_ids,
        x.anchor_ids,
        x.context_lens,
        capacity=CAPACITY,
        draft_lens=x.draft_lens,
        backend=backend,
    )
    target_logits = x.table[packed.input_ids % 64]
    one_hot = accept(target_logits, packed, x.draft_ids, x.uniforms, temperature=x.temperature, backend=backend)
    full = accept(
        target_logits,
        packed,
        x.draft_ids,
        x.uniforms,
        draft_logits=x.draft_logits,
        temperature=x.temperature,
        backend=backend,
    )
    return *selection, *packed, *one_hot, *full, scores


def same(outputs, expected) -> None:
    *integers, scores = outputs
    *expected_integers, expected_scores = expected
    for i, (got, want) in enumerate(zip(integers, expected_integers, strict=True)):
        assert torch.equal(got.cpu(), want.cpu()), i
    torch.testing.assert_close(scores.cpu(), expected_scores.cpu(), rtol=2**-19, atol=2**-19)


def plan(logprobs: torch.Tensor, tokens: torch.Tensor, seconds: torch.Tensor, backend: str) -> tuple[torch.Tensor, ...]:
    """A budget chosen and spent, and what to expect of others."""
    budget = choose_budget(logprobs, tokens, seconds, backend=backend)
    picked = select(logprobs, budget, backend=backend)
    return budget, *picked, expected_accepts(logprobs, tokens, backend=backend)


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_a_budget_is_chosen_and_spent_within_one_graph(backend):
    """Captured once, replayed with other drafts and costs, without a synchronisation; the bits of the CPU."""
    warmup("cuda")
    cost = torch.arange(16).float() / 10
    tokens = NUM_REQUESTS + torch.arange(16) * NUM_REQUESTS * NUM_DRAFTS // 16
    inputs = [torch.zeros(NUM_REQUESTS, NUM_DRAFTS), tokens, 1 + cost]
    inputs = [tensor.to("cuda") for tensor in inputs]
    plan(*inputs, backend)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = plan(*inputs, backend)
    chosen = set()
    for seed in range(8):
        generator = torch.Generator().manual_seed(seed)
        logprobs = torch.rand(NUM_REQUESTS, NUM_DRAFTS, generator=generator).log()
        seconds = 1 + cost * (0.1 + 0.4 * seed) + cost.square()
        for given, tensor in zip(inputs, (logprobs, tokens, seconds), strict=True):
            given.copy_(tensor)
        graph.replay()
        torch.cuda.synchronize()
        expected = plan(logprobs, tokens, seconds, "torch")
        assert all(torch.equal(got.cpu(), want) for got, want in zip(outputs, expected, strict=True))
        chosen.add(int(expected[0]))
    assert len(chosen) > 2
    torch.cuda.set_sync_debug_mode("error")
    try:
        plan(*inputs, backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_a_step_is_that_of_the_cpu(backend, seed):
    same(step(Inputs(seed, "cuda"), backend), step(Inputs(seed, "cpu"), "torch"))


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_no_synchronisation(backend):
    inputs = Inputs(0, "cuda")
    step(inputs, backend)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        step(inputs, backend)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("backend", ["triton", "torch"])
def test_a_step_is_one_graph(backend):
    """Captured once, replayed with other inputs, budgets, lengths and temperatures."""
    warmup("cuda")
    inputs = Inputs(0, "cuda")
    step(inputs, backend)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = step(inputs, backend)
    for seed in range(1, 6):
        inputs.copy_(Inputs(seed, "cuda"))
        graph.replay()
        torch.cuda.synchronize()
        same(outputs, step(Inputs(seed, "cpu"), "torch"))
