"""The stages over logits on a GPU: times by graph replay, and the bytes of the logits over that time."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from bench import gpu_time
from bench.gate import RedGate
from bench.gpu_results import Row
from tetris_kernels import PackedBatch, accept, pack, score, select, select_from_logits

SHAPES = ((64, 8), (256, 8))
VOCABULARIES = (32000, 151936)
MIN_BYTES = 200 << 20  # of all buffers together: several times an L2
MIN_BUFFERS = 6  # calls of a graph: the more, the less its ends weigh


def require_right(draft_logits: Tensor, draft_ids: Tensor, packed: PackedBatch, target_logits: Tensor) -> None:
    """What is timed is right on these tensors, or RedGate: scores against doubles, selections against `select`,
    acceptance against the torch backend.
    """
    budget = draft_ids.numel() // 2
    exact = draft_logits.double()
    total = exact.logsumexp(-1)
    token = exact.gather(2, draft_ids[:, :, None])[..., 0] - total
    collision = (2 * exact).logsumexp(-1) - 2 * total
    for kind, wanted, units in (("token", token, 1), ("collision", collision, 4)):
        found = score(draft_logits, draft_ids, kind=kind)
        if not ((found - wanted).abs() <= units * 2.0**-17 * (1 + wanted.abs())).all():
            raise RedGate(f"score of kind {kind} is beyond its bound: nothing is measured")
    selection, scores = select_from_logits(draft_logits, draft_ids, budget)
    if not torch.equal(selection.lens, select(scores, budget, backend="torch").lens):
        raise RedGate("select_from_logits is not select of its scores: nothing is measured")
    if int(in_torch(draft_logits, draft_ids).sum()) != budget:
        raise RedGate("log_softmax + topk does not keep the budget: nothing is measured")

    generator = torch.Generator(draft_ids.device).manual_seed(0)
    uniforms = torch.rand(len(draft_ids), draft_ids.shape[1] + 1, device=draft_ids.device, generator=generator)
    for options in ({"temperature": 0.0}, {}, {"draft_logits": draft_logits}):
        ours, wanted = (
            accept(target_logits, packed, draft_ids, uniforms, **options, backend=backend)
            for backend in ("auto", "torch")
        )
        # A draw within rounding of the border of two tokens may fall on either side.
        same = (ours.tokens == wanted.tokens).all(1).float().mean()
        if same < (1.0 if "temperature" in options else 0.9):
            raise RedGate(f"accept with {options.keys()} agrees on {same:.0%} of requests: nothing is measured")


def in_torch(draft_logits: Tensor, draft_ids: Tensor) -> Tensor:
    """The lens as an engine without kernels of its own finds them: log-softmax, cumulative sum, top-k, count."""
    scores = draft_logits.float().log_softmax(-1).gather(2, draft_ids[:, :, None])[..., 0]
    num_requests, num_drafts = scores.shape
    chosen = scores.cumsum(1).flatten().topk(scores.numel() // 2, sorted=False).indices // num_drafts
    return chosen.new_zeros(num_requests).scatter_add_(0, chosen, torch.ones_like(chosen))


def measure() -> Iterator[Row]:
    """A row for each stage, shape and vocabulary; bfloat16, half of the drafts selected."""
    for shape, vocabulary in itertools.product(SHAPES, VOCABULARIES):
        yield from _measure(shape, vocabulary, torch.compile(in_torch, fullgraph=True))


def _measure(shape: tuple[int, int], vocabulary: int, compiled: Callable[[Tensor, Tensor], Tensor]) -> Iterator[Row]:
    n, k = shape
    generator = torch.Generator("cuda").manual_seed(0)

    def drawn(*size: int) -> list[Tensor]:
        count = max(MIN_BUFFERS, -(-MIN_BYTES // (2 * n * k * vocabulary)))
        return [torch.randn(*size, device="cuda", generator=generator).bfloat16() for _ in range(count)]

    drafts, ids = drawn(n, k, vocabulary), torch.randint(vocabulary, (n, k), device="cuda", generator=generator)
    # The target's logits are new ones, of as many slots as half of the drafts and the anchors take.
    capacity = n * (k // 2 + 1)
    packed = pack(select(score(drafts[0], ids), n * k // 2), ids, ids[:, 0], ids[:, 0], capacity=capacity)
    targets = drawn(capacity, vocabulary)
    require_right(drafts[0], ids, packed, targets[0])

    uniforms = torch.rand(n, k + 1, device="cuda", generator=generator)
    of_drafts, of_slots = 2 * n * k * vocabulary, 2 * capacity * vocabulary
    ways: dict[str, tuple[int, Callable[[Tensor, Tensor], object]]] = {
        "score": (of_drafts, lambda d, t: score(d, ids)),
        "score, collision": (of_drafts, lambda d, t: score(d, ids, kind="collision")),
        "select_from_logits": (of_drafts, lambda d, t: select_from_logits(d, ids, n * k // 2)),
        "log_softmax + topk, eager": (of_drafts, lambda d, t: in_torch(d, ids)),
        "log_softmax + topk, compiled": (of_drafts, lambda d, t: compiled(d, ids)),
        "accept, greedy": (of_slots, lambda d, t: accept(t, packed, ids, uniforms, temperature=0.0)),
        "accept, one-hot drafts": (of_slots, lambda d, t: accept(t, packed, ids, uniforms)),
        "accept, drawn drafts": (
            of_slots + of_drafts,
            lambda d, t: accept(t, packed, ids, uniforms, draft_logits=d),
        ),
    }
    for way, (num_bytes, run) in ways.items():
        calls = [partial(run, d, t) for d, t in zip(drafts, targets, strict=True)]
        yield _row(way, shape, vocabulary, calls, num_bytes)


def _row(way: str, shape: tuple[int, int], vocabulary: int, calls: list[gpu_time.Call], num_bytes: int) -> Row:
    microseconds, _ = gpu_time.warm(calls)
    return {
        "requests": shape[0],
        "drafts": shape[1],
        "vocabulary": vocabulary,
        "way": way,
        "us": round(microseconds, 1),
        "logits TB/s": round(num_bytes / microseconds / 1e6, 2),
    }
