"""The stages over logits on a GPU: times by graph replay, and the bytes of the logits over that time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from bench import gpu_time
from bench.gate import RedGate
from bench.gpu_results import Row
from tetris_kernels import accept, pack, score, select, select_from_logits

SHAPES = ((64, 8), (256, 8))
VOCABULARIES = (32000, 151936)
MIN_BYTES = 200 << 20  # of all buffers together: several times an L2


def require_right() -> None:
    """Scores within the bound that they promise against doubles, and the selection that of the scores."""
    generator = torch.Generator("cuda").manual_seed(1)
    for vocabulary in VOCABULARIES:
        logits = torch.randn(16, 4, vocabulary, device="cuda", generator=generator).bfloat16()
        ids = torch.randint(vocabulary, (16, 4), device="cuda", generator=generator)
        selection, scores = select_from_logits(logits, ids, 32)
        exact = logits.double().log_softmax(-1).gather(2, ids[:, :, None])[..., 0]
        if ((scores - exact).abs() > 2.0**-17 * (1 + exact.abs())).any():
            raise RedGate(f"scores of {vocabulary} tokens are beyond their bound: nothing is measured")
        if not torch.equal(selection.lens, select(scores, 32).lens) or not torch.equal(scores, score(logits, ids)):
            raise RedGate(f"select_from_logits of {vocabulary} tokens is not select of score: nothing is measured")


def ceilings() -> dict[str, float]:
    """What this GPU's memory gives, bytes per second."""
    return {"copy": gpu_time.copy_bandwidth(), "read": gpu_time.read_bandwidth()}


def in_torch(draft_logits: Tensor, draft_ids: Tensor) -> Tensor:
    """The lens as an engine without kernels of its own finds them: log-softmax, cumulative sum, top-k, count."""
    scores = draft_logits.float().log_softmax(-1).gather(2, draft_ids[:, :, None])[..., 0]
    num_requests, num_drafts = scores.shape
    chosen = scores.cumsum(1).flatten().topk(scores.numel() // 2, sorted=False).indices // num_drafts
    return chosen.new_zeros(num_requests).scatter_add_(0, chosen, torch.ones_like(chosen))


def measure() -> Iterator[Row]:
    """A row for each stage, shape and vocabulary; bfloat16, half of the drafts selected."""
    compiled = torch.compile(in_torch, fullgraph=True)
    for (n, k), vocabulary in ((shape, v) for shape in SHAPES for v in VOCABULARIES):
        generator = torch.Generator("cuda").manual_seed(0)
        num_buffers = max(2, -(-MIN_BYTES // (2 * n * k * vocabulary)))
        buffers = [
            torch.randn(n, k, vocabulary, device="cuda", generator=generator).bfloat16() for _ in range(num_buffers)
        ]
        ids = torch.randint(vocabulary, (n, k), device="cuda", generator=generator)
        ways: dict[str, Callable[[Tensor], object]] = {
            "score": lambda x, ids=ids: score(x, ids),
            "score, collision": lambda x, ids=ids: score(x, ids, kind="collision"),
            "select_from_logits": lambda x, ids=ids: select_from_logits(x, ids, ids.numel() // 2),
            "log_softmax + topk, eager": lambda x, ids=ids: in_torch(x, ids),
            "log_softmax + topk, compiled": lambda x, ids=ids: compiled(x, ids),
        }
        for way, run in ways.items():
            yield _row(way, (n, k), vocabulary, [partial(run, x) for x in buffers], 2 * n * k * vocabulary)
        if n == SHAPES[0][0]:
            yield from _accept(buffers, ids, generator)


def _accept(buffers: list[Tensor], ids: Tensor, generator: torch.Generator) -> Iterator[Row]:
    """accept after half of the drafts were selected; the target's logits are new ones of that many slots."""
    n, k = ids.shape
    vocabulary = buffers[0].shape[2]
    capacity = n * (k // 2 + 1)
    scores = -torch.rand(n, k, device="cuda", generator=generator)
    anchors = ids[:, 0].contiguous()
    packed = pack(select(scores, n * k // 2), ids, anchors, anchors, capacity=capacity)
    uniforms = torch.rand(n, k + 1, device="cuda", generator=generator)
    targets = [torch.randn(capacity, vocabulary, device="cuda", generator=generator).bfloat16() for _ in buffers]
    slots, drafts = 2 * capacity * vocabulary, 2 * n * k * vocabulary
    ways: dict[str, tuple[int, Callable[[Tensor, Tensor], object]]] = {
        "accept, greedy": (slots, lambda t, d: accept(t, packed, ids, uniforms, temperature=0.0)),
        "accept, one-hot drafts": (slots, lambda t, d: accept(t, packed, ids, uniforms)),
        "accept, drawn drafts": (
            slots + drafts,
            lambda t, d: accept(t, packed, ids, uniforms, draft_logits=d),
        ),
    }
    for way, (num_bytes, run) in ways.items():
        calls = [partial(run, t, d) for t, d in zip(targets, buffers, strict=True)]
        yield _row(way, (n, k), vocabulary, calls, num_bytes)


def _row(way: str, shape: tuple[int, int], vocabulary: int, calls: list[gpu_time.Call], num_bytes: int) -> Row:
    microseconds = gpu_time.warm(calls)
    return {
        "requests": shape[0],
        "drafts": shape[1],
        "vocabulary": vocabulary,
        "way": way,
        "us": round(microseconds, 1),
        "logits TB/s": round(num_bytes / microseconds / 1e6, 2),
    }
