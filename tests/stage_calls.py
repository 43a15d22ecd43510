"""Calls of all stages but select that the tests of the operators share."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from tetris_kernels import (
    PackedBatch,
    Selection,
    accept,
    choose_budget,
    expected_accepts,
    pack,
    score,
    select_from_logits,
)

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BACKEND = "triton" if INTERPRETED else "auto"
N, K, V = 5, 3, 24
CAPACITY = 14
# Fake tensors of a GPU need none; where there are some, they know how many.
FAKE_GPUS = ["cuda:0"] if torch.cuda.device_count() == 1 else ["cuda:0", "cuda:1"]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def draft_tensors(n: int = N, k: int = K, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """What score takes of a batch."""
    return {
        "draft_logits": torch.randn(n, k, V, generator=seeded(seed)).to(dtype) * 2,
        "draft_ids": torch.randint(0, V, (n, k), generator=seeded(seed + 1)),
    }


def score_tensors(n: int = N, k: int = K, **options: Any) -> dict[str, Tensor]:
    """All that score can be given."""
    more = {"temperature": torch.linspace(0, 2, n), "draft_lens": torch.arange(n) % (k + 1)}
    return draft_tensors(n, k, **options) | more


def select_tensors(n: int = N, k: int = K, **options: Any) -> dict[str, Tensor]:
    """All that select_from_logits can be given."""
    more = {
        "budget": torch.tensor(n * k // 2),
        "min_lens": torch.ones(n, dtype=torch.int32),
        "max_lens": torch.full((n,), k - 1),
        "log_weights": torch.linspace(-1, 1, n),
    }
    return score_tensors(n, k, **options) | more


def expect_tensors(n: int = N, k: int = K, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """All that expected_accepts can be given."""
    preferences = {name: t for name, t in select_tensors(n, k).items() if name.endswith(("_lens", "weights"))}
    logprobs = -torch.rand(n, k, generator=seeded(seed)).to(dtype)
    return {"draft_logprobs": logprobs, "budgets": torch.tensor([7, -1, 2, 100])} | preferences


def choose_tensors(n: int = N, k: int = K, **options: Any) -> dict[str, Tensor]:
    """All that choose_budget can be given."""
    tensors = expect_tensors(n, k, **options)
    del tensors["budgets"]
    ends = {"tokens": torch.tensor([n - 1, n, n + 4, n + 9]), "seconds": torch.tensor([0.9, 1.0, 1.2, 2.0])}
    return tensors | ends | {"requests": torch.tensor(n)}


def pack_tensors(n: int = N, k: int = K, seed: int = 0, dtype: torch.dtype = torch.int64) -> dict[str, Tensor]:
    """All that pack can be given; of the selection its lens."""
    return {
        "lens": torch.randint(0, k + 1, (n,), generator=seeded(seed), dtype=torch.int32),
        "draft_ids": torch.randint(0, V, (n, k), generator=seeded(seed + 1), dtype=dtype),
        "anchor_ids": torch.randint(0, V, (n,), generator=seeded(seed + 2), dtype=dtype),
        "context_lens": torch.randint(-2, 50, (n,), generator=seeded(seed + 3)),
        "draft_lens": torch.randint(0, k + 1, (n,), generator=seeded(seed + 4)),
    }


def packed_batch(n: int = N, k: int = K, seed: int = 0, capacity: int = CAPACITY) -> tuple[PackedBatch, Tensor]:
    """A batch and its draft_ids."""
    tensors = pack_tensors(n, k, seed)
    return run_pack(tensors, capacity=capacity, backend="torch"), tensors["draft_ids"]


def accept_tensors(n: int = N, k: int = K, dtype: torch.dtype = torch.float32, seed: int = 0) -> dict[str, Tensor]:
    """All that accept can be given; of the packed batch the four fields that it reads."""
    packed, draft_ids = packed_batch(n, k, seed)
    return {
        "target_logits": torch.randn(CAPACITY, V, generator=seeded(seed + 5)).to(dtype) * 2,
        "request_ids": packed.request_ids,
        "cu_seqlens": packed.cu_seqlens,
        "lens": packed.lens,
        "draft_lens": packed.draft_lens,
        "draft_ids": draft_ids,
        "uniforms": torch.rand(n, k + 1, generator=seeded(seed + 6)),
        "draft_logits": torch.randn(n, k, V, generator=seeded(seed + 7)).to(dtype),
        "temperature": torch.linspace(0, 2, n),
    }


def run_score(tensors: dict[str, Tensor], **options: Any) -> Tensor:
    tensors = dict(tensors)
    return score(tensors.pop("draft_logits"), tensors.pop("draft_ids"), **tensors, **{"backend": BACKEND} | options)


def run_select(tensors: dict[str, Tensor], **options: Any) -> tuple[Selection, Tensor]:
    tensors = {"budget": 7} | tensors
    first = [tensors.pop(name) for name in ("draft_logits", "draft_ids", "budget")]
    return select_from_logits(*first, **tensors, **{"backend": BACKEND} | options)


def run_expect(tensors: dict[str, Tensor], **options: Any) -> Tensor:
    return expected_accepts(**tensors, **{"backend": BACKEND} | options)


def run_choose(tensors: dict[str, Tensor], **options: Any) -> Tensor:
    return choose_budget(**tensors, **{"backend": BACKEND} | options)


def run_pack(tensors: dict[str, Tensor], **options: Any) -> PackedBatch:
    tensors = dict(tensors)
    lens = tensors.pop("lens")
    first = [tensors.pop(name) for name in ("draft_ids", "anchor_ids", "context_lens")]
    return pack(Selection(lens, lens), *first, **tensors, **{"capacity": CAPACITY, "backend": BACKEND} | options)


def run_accept(tensors: dict[str, Tensor], **options: Any) -> Any:
    tensors = dict(tensors)
    logits, draft_ids, uniforms = (tensors.pop(name) for name in ("target_logits", "draft_ids", "uniforms"))
    fields = {name: tensors.pop(name) for name in ("request_ids", "cu_seqlens", "lens", "draft_lens")}
    unread = dict.fromkeys(("input_ids", "position_ids", "overflow"), logits)
    return accept(
        logits, PackedBatch(**fields, **unread), draft_ids, uniforms, **tensors, **{"backend": BACKEND} | options
    )


# Each operator: how its public function is called, and with which tensors.
CALLS: dict[str, tuple[Callable[..., Any], Callable[..., dict[str, Tensor]]]] = {
    "score": (run_score, score_tensors),
    "select_from_logits": (run_select, select_tensors),
    "expected_accepts": (run_expect, expect_tensors),
    "choose_budget": (run_choose, choose_tensors),
    "pack": (run_pack, pack_tensors),
    "accept": (run_accept, accept_tensors),
}


def leaves(result: Any) -> list[Tensor]:
    return tree_leaves(result)


def same(a: Any, b: Any) -> bool:
    """Equal results, bit for bit, NaN equal to itself."""
    pairs = zip(leaves(a), leaves(b), strict=True)
    return all(x.dtype == y.dtype and torch.equal(x.nan_to_num(), y.nan_to_num()) for x, y in pairs)
