"""What only a GPU can show: graphs, streams, synchronisation, device guards. Skipped, with the reason, without one.

The cases of test_selection.py run on the GPU too, where there is one: see conftest.py.
"""

from __future__ import annotations

import pytest
import torch

from tetris_kernels import select, warmup

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or ROCm GPU here")

BACKENDS = ("triton", "torch")


def batch(num_requests: int, num_drafts: int, seed: int = 0, device: str = "cuda") -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return (-torch.rand(num_requests, num_drafts, generator=generator)).to(device)


def on_cpu(logprobs: torch.Tensor, budget: int, **optional: torch.Tensor) -> tuple[list[int], list[int]]:
    expected = select(logprobs.cpu(), budget, **{name: value.cpu() for name, value in optional.items()})
    return expected.lens.tolist(), expected.cu_lens.tolist()


def as_lists(selection) -> tuple[list[int], list[int]]:
    return selection.lens.tolist(), selection.cu_lens.tolist()


def test_warmup_loads_the_whole_catalogue():
    from tetris_kernels.kernels import catalogue  # needs triton, which a session without a GPU may lack

    assert warmup("cuda") == len(catalogue.variants())


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("shape", [(64, 8), (1000, 16), (5000, 8)])
def test_no_synchronisation(backend, shape):
    if backend == "triton" and shape == (5000, 8):
        backend = "auto"
    logprobs, budget = batch(*shape), torch.tensor(100, device="cuda")
    lens = torch.full((shape[0],), 3, device="cuda")
    select(logprobs, budget, draft_lens=lens, backend=backend)  # compiles
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for value in (budget, 100, 10**9):
            picked = select(logprobs, value, draft_lens=lens, backend=backend)
            picked.mask(shape[1])
            picked.indices(128)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("transposed", [False, True])
def test_graph_replay_with_changed_inputs(backend, transposed):
    shape = (37, 8)
    warmup("cuda", max_requests=64, max_drafts=8)
    logprobs = torch.zeros(shape[::-1], device="cuda").T if transposed else torch.zeros(shape, device="cuda")
    budget = torch.zeros((), dtype=torch.int64, device="cuda")
    lens = torch.zeros(shape[0], dtype=torch.int32, device="cuda")
    select(logprobs, budget, draft_lens=lens, backend=backend)
    torch.cuda.synchronize()

    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        picked = select(logprobs, budget, draft_lens=lens, backend=backend)
        request, position = picked.indices(64)
    for seed, value in enumerate([0, 1, 5, 40, 200, 296, 10**6, -3]):
        logprobs.copy_(batch(*shape, seed=seed))
        lens.copy_(torch.arange(shape[0]).add(seed) % 10)
        budget.fill_(value)
        for output in (*picked, request, position):
            output.fill_(-7)
        graph.replay()
        expected = select(logprobs.cpu(), max(value, 0), draft_lens=lens.cpu())
        assert as_lists(picked) == as_lists(expected)
        assert [request.tolist(), position.tolist()] == [t.tolist() for t in expected.indices(64)]


@pytest.mark.parametrize("backend", BACKENDS)
def test_runs_on_the_current_stream(backend):
    source, logprobs = batch(64, 8), torch.zeros(64, 8, device="cuda")
    select(logprobs, 100, backend=backend)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(50_000_000)  # a launch on another stream would see the zeros
        logprobs.copy_(source, non_blocking=True)
        picked = select(logprobs, 100, backend=backend)
    stream.synchronize()
    assert as_lists(picked) == on_cpu(source, 100)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="fewer than two GPUs here")
@pytest.mark.parametrize("backend", BACKENDS)
def test_tensors_of_a_device_that_is_not_current(backend):
    logprobs = batch(64, 8, device="cuda:1")
    with torch.cuda.device(0):
        picked = select(logprobs, 100, backend=backend)
        assert torch.cuda.current_device() == 0
    assert picked.lens.device == torch.device("cuda:1")
    assert as_lists(picked) == on_cpu(logprobs, 100)


def test_the_same_bits_on_every_run():
    logprobs = torch.zeros(1024, 8, device="cuda")
    first = select(logprobs, 4000)
    for _ in range(100):
        again = select(logprobs, 4000)
        assert torch.equal(first.lens, again.lens)


def test_compiled_with_a_device_budget():
    step = torch.compile(lambda logprobs, budget: select(logprobs, budget).lens + 0, fullgraph=True)
    for value in (3, 100, 0):
        logprobs = batch(64, 8, seed=value)
        assert step(logprobs, torch.tensor(value, device="cuda")).tolist() == on_cpu(logprobs, value)[0]
