"""A representative call of the public functions for each variant of the catalogue, on CPU tensors."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tetris_kernels import accept, choose_budget, expected_accepts, pack, score, select, select_from_logits
from tetris_kernels.kernels import expectation, scoring, selection

REQUESTS, DRAFTS, VOCABULARY = 2, 4, 8704  # of calls on logits: two chunks, of which a row is read
SINGLE, BFLOAT, HALF = torch.float32, torch.bfloat16, torch.float16


@dataclass(frozen=True)
class Call:
    """A call of a public function, and the variants that it is to show; it may launch others too."""

    variants: tuple[str, ...]
    batch: str  # what it is called on
    function: Callable[..., Any]
    arguments: Callable[[], dict[str, Any]]  # all but the backend


def calls() -> Iterator[Call]:
    """Each variant is in one of these calls."""
    yield from _select_calls()
    yield from _planning_calls()
    yield from _logits_calls()
    yield from _pack_calls()
    yield from _accept_calls()


def tensors(tree: object) -> list[Tensor]:
    """All tensors of a call's arguments or result, in order."""
    return [leaf for leaf in tree_leaves(tree) if isinstance(leaf, Tensor)]


def smooth_logprobs(num_requests: int, num_drafts: int) -> Tensor:
    """Log-probs of many sizes and hardly a tie: minus exponential ones of mean 0.5."""
    return torch.empty(num_requests, num_drafts).exponential_(2.0, generator=_seeded(0)).neg_()


def _select_calls() -> Iterator[Call]:
    """The full bucket; half of its drafts, by a budget on the device."""
    batches = {"plain": "float32", "full": "float32, all optional", "half": "bfloat16"}
    for (n, k, _), kind in itertools.product(selection.BUCKETS, batches):

        def arguments(n: int = n, k: int = k, kind: str = kind) -> dict[str, Any]:
            logprobs = smooth_logprobs(n, k).to(BFLOAT if kind == "half" else SINGLE)
            return {"draft_logprobs": logprobs, "budget": _half(n, k)} | (_preferences(n, k) if kind == "full" else {})

        yield Call((f"select-{kind}-{n}x{k}",), f"{n} x {k}, {batches[kind]}", select, arguments)


def _planning_calls() -> Iterator[Call]:
    """The full bucket; a budget of half of its drafts, and a choice between 16 of them."""
    for n, k, _ in expectation.BUCKETS:

        def arguments(n: int = n, k: int = k) -> dict[str, Any]:
            return {"draft_logprobs": smooth_logprobs(n, k), "budgets": _half(n, k).view(1)}

        yield Call((f"expect-{n}x{k}",), f"{n} x {k}, 1 budget", expected_accepts, arguments)
    yield Call(("choose-budget",), "64 x 8, 16 ends", choose_budget, choice)


def choice(n: int = 64, k: int = 8, ends: int = 16) -> dict[str, Any]:
    """What choose_budget takes: ends as far apart as they can be, of a convex cost."""
    tokens = n + n * k * torch.arange(ends) // ends
    return {"draft_logprobs": smooth_logprobs(n, k), "tokens": tokens, "seconds": 1 + (tokens / (n * k)).square()}


def _preferences(n: int, k: int) -> dict[str, Tensor]:
    """All optional tensors; they exclude no draft and change no priority."""
    lens = torch.full((n,), k, dtype=torch.int32)
    ones = {"draft_lens": lens, "min_lens": torch.zeros_like(lens), "max_lens": lens.clone()}
    return ones | {"log_weights": torch.zeros(n)}


def _logits_calls() -> Iterator[Call]:
    for dtype, names in {SINGLE: ("score-chunk-fp32", "score"), BFLOAT: ("score-chunk-bf16",)}.items():
        yield Call(names, _of_logits(dtype), score, lambda dtype=dtype: _drafts(dtype))
    yield Call(("score-chunk-fp16",), _of_logits(HALF), score, lambda: _drafts(HALF))
    for n, k, _ in scoring.BUCKETS:
        # The full bucket, of a small vocabulary: only the states of its chunks get to the variant.
        yield Call(
            (f"score-and-select-{n}x{k}",),
            f"{n} x {k} x 16, float32",
            select_from_logits,
            lambda n=n, k=k: _drafts(SINGLE, n, k, 16) | {"budget": _half(n, k)},
        )


def _pack_calls() -> Iterator[Call]:
    for dtype in (torch.int32, torch.int64):
        name = _name(dtype)
        yield Call((f"pack-{name}",), f"64 x 8, {name}", pack, lambda dtype=dtype: _selected(dtype, 64, 8))


def _accept_calls() -> Iterator[Call]:
    """Each dtype of logits with and without drafts' logits; float16, whose code is bfloat16's, with long rows."""
    for target, draft, k, names in (
        (SINGLE, None, DRAFTS, ("target-float32", "decide-onehot-32", "draw-single-onehot")),
        (BFLOAT, None, DRAFTS, ("target-bfloat16", "draw-half-onehot")),
        (HALF, None, 40, ("target-float16", "decide-onehot-512")),
        (SINGLE, SINGLE, DRAFTS, ("draft-float32", "decide-full-32", "residual-single-single", "draw-single-single")),
        (SINGLE, BFLOAT, DRAFTS, ("draft-bfloat16", "residual-single-half", "draw-single-half")),
        (BFLOAT, SINGLE, DRAFTS, ("residual-half-single", "draw-half-single")),
        (BFLOAT, BFLOAT, DRAFTS, ("residual-half-half", "draw-half-half")),
        (HALF, HALF, 40, ("draft-float16", "decide-full-512")),
    ):
        variants = tuple(f"accept-{name}" for name in names)
        batch = _of_logits(target, k) + (f", {_name(draft)} drafts" if draft else "")
        yield Call(variants, batch, accept, lambda target=target, draft=draft, k=k: _verified(target, draft, k))


def _selected(dtype: torch.dtype, n: int, k: int) -> dict[str, Any]:
    """What pack takes, half of the drafts selected."""
    ids = torch.randint(0, VOCABULARY, (n, k), generator=_seeded(1), dtype=dtype)
    return {
        "selection": select(smooth_logprobs(n, k), n * k // 2),
        "draft_ids": ids,
        "anchor_ids": ids[:, 0].clone(),
        "context_lens": torch.arange(n),
        "capacity": n + n * k // 2,
    }


def _verified(target: torch.dtype, draft: torch.dtype | None, k: int) -> dict[str, Any]:
    """What accept takes."""
    selected = _selected(torch.int64, REQUESTS, k)
    packed = pack(**selected)
    arguments = {
        "target_logits": torch.randn(selected["capacity"], VOCABULARY, generator=_seeded(2)).to(target),
        "packed": packed,
        "draft_ids": selected["draft_ids"],
        "uniforms": torch.rand(REQUESTS, k + 1, generator=_seeded(4)),
    }
    if draft is not None:
        # A drafter that is sure of its drafts, and wrong: the first is rejected, and another token drawn for it.
        logits = torch.randn(REQUESTS, k, VOCABULARY, generator=_seeded(3))
        arguments["draft_logits"] = logits.scatter_(2, selected["draft_ids"][:, :, None], 20.0).to(draft)
    return arguments


def _drafts(dtype: torch.dtype, n: int = REQUESTS, k: int = DRAFTS, vocabulary: int = VOCABULARY) -> dict[str, Any]:
    """Logits and the most likely tokens, which a greedy drafter takes."""
    logits = (torch.randn(n, k, vocabulary, generator=_seeded(2)) * 3).to(dtype)
    return {"draft_logits": logits, "draft_ids": logits.float().argmax(-1)}


def _half(n: int, k: int) -> Tensor:
    return torch.tensor(n * k // 2, dtype=torch.int32)


def _of_logits(dtype: torch.dtype, k: int = DRAFTS) -> str:
    return f"{REQUESTS} x {k} x {VOCABULARY}, {_name(dtype)}"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def _seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)
