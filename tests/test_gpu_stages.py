"""A whole step on a GPU: no synchronisation, one CUDA graph, the same as on the CPU. Skipped without a GPU."""

from __future__ import annotations

import pytest
import torch

from tetris_kernels import accept, pack, select_from_logits, warmup

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
