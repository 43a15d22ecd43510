"""The named inputs of `pack` that every backend is checked on."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import oracle_packing
import torch
from cases import EXTREMES, Index, copy, lens
from torch import Tensor

from tetris_kernels import PackedBatch, Selection, pack

TENSORS = ("lens", "draft_ids", "anchor_ids", "context_lens", "draft_lens")


@dataclass(frozen=True)
class Case:
    """A batch on the CPU; `on` gives a copy of the same strides on a device."""

    name: str
    lens: Tensor
    draft_ids: Tensor
    anchor_ids: Tensor
    context_lens: Tensor
    draft_lens: Tensor | None = None
    pad_id: int = 0

    @property
    def tensors(self) -> dict[str, Tensor]:
        """The tensors that are given."""
        return {name: getattr(self, name) for name in TENSORS if getattr(self, name) is not None}

    def on(self, device: str) -> Case:
        moved: dict[str, Any] = {name: copy(tensor, device) for name, tensor in self.tensors.items()}
        return replace(self, **moved)

    @property
    def lists(self) -> dict[str, Any]:
        return {name: tensor.tolist() for name, tensor in self.tensors.items()}

    def expected(self, capacity: int) -> dict[str, Any]:
        """The oracle's fields."""
        return oracle_packing.pack(**self.lists, capacity=capacity, pad_id=self.pad_id)

    def num_tokens(self) -> int:
        return len(oracle_packing.tokens(**self.lists))

    def pack(self, capacity: Any, backend: str) -> PackedBatch:
        # cu_lens is not looked at: lens may be clamped.
        selection = Selection(self.lens, self.lens[:0])
        options: dict[str, Any] = {"draft_lens": self.draft_lens, "pad_id": self.pad_id, "backend": backend}
        return pack(selection, self.draft_ids, self.anchor_ids, self.context_lens, capacity=capacity, **options)


def drafts(n: int, k: int, dtype: torch.dtype = torch.int64) -> Tensor:
    """[n, k] ids, each of which says where it stands."""
    return (torch.arange(n, dtype=dtype)[:, None] + 1) * 1000 + torch.arange(k, dtype=dtype)


def batch(n: int, k: int, seed: int = 0, name: str = "", **changes: Any) -> Case:
    """n requests with 0..k of k drafts selected."""
    generator = torch.Generator().manual_seed(seed)
    ids = changes.get("draft_ids", drafts(n, k))
    values: dict[str, Any] = {
        "lens": torch.randint(0, k + 1, (n,), generator=generator, dtype=torch.int32),
        "draft_ids": ids,
        "anchor_ids": -torch.arange(1, n + 1, dtype=ids.dtype),
        "context_lens": torch.randint(0, 9000, (n,), generator=generator),
    }
    return Case(name or f"{n} x {k}", **values | changes)


def some_capacities(total: int) -> list[int]:
    return sorted({0, 1, total // 3, max(total - 1, 0), total, total + 1, total + 40})


MIN32, MAX32 = -(2**31), 2**31 - 1
EXTREME = lens(EXTREMES, torch.int64)

SHAPES = [
    batch(n, k, seed=n + k)
    for n, k in [(0, 0), (0, 5), (6, 0), (1, 1), (1, 7), (31, 3), (32, 4), (33, 5), (65, 1)]
    + [(5, 15), (5, 16), (5, 17), (4, 31), (4, 33), (3, 256), (70, 20)]
]
LAYOUTS = [
    batch(9, 6, 1, "int32 ids", draft_ids=drafts(9, 6, torch.int32)),
    batch(9, 6, 2, "transposed", draft_ids=drafts(6, 9).T),
    batch(9, 20, 3, "transposed int32", draft_ids=drafts(20, 9, torch.int32).T),
    batch(5, 7, 4, "every second column", draft_ids=drafts(5, 14)[:, ::2]),
    batch(5, 7, 5, "every third row and column", draft_ids=drafts(15, 21, torch.int32)[::3, ::3]),
    batch(6, 8, 6, "one row for all", draft_ids=drafts(1, 8).expand(6, 8)),
    batch(6, 8, 7, "one column for all", draft_ids=drafts(6, 1).expand(6, 8)),
    batch(6, 8, 8, "one id for all", draft_ids=drafts(1, 1, torch.int32).expand(6, 8)),
    batch(5, 4, 9, "behind each request's anchor", draft_ids=drafts(5, 5)[:, 1:], anchor_ids=drafts(5, 5)[:, 0]),
    batch(5, 4, 10, "odd base, int32", draft_ids=drafts(1, 21, torch.int32).flatten()[1:].view(5, 4)),
    batch(4, 4, 11, "overlapping rows", draft_ids=drafts(1, 11).flatten().as_strided((4, 4), (2, 1), 1)),
    batch(4, 4, 12, "every second length", lens=lens([1, 9, 4, 9, 0, 9, 2, 9])[::2]),
    batch(4, 4, 13, "every second context", context_lens=lens([1, -9, 4, -9, 0, -9, 2, -9], torch.int64)[::2]),
    batch(4, 4, 14, "every second int32 context", context_lens=lens([1, -9, 4, -9, 0, -9, 2, -9])[::2]),
    batch(4, 4, 15, "every second draft length", draft_lens=lens([1, 9, 4, 9, 0, 9, 2, 9], torch.int64)[1::2]),
    batch(4, 4, 16, "one draft length for all", draft_lens=lens([2]).expand(4)),
    batch(
        4,
        4,
        17,
        "one of each for all",
        lens=lens([3]).expand(4),
        context_lens=lens([5]).expand(4),
        anchor_ids=drafts(1, 1)[0].expand(4),
    ),
]
LENGTHS = [
    batch(7, 4, 20, "all of every request", lens=lens([4] * 7)),
    batch(7, 4, 21, "nothing of any request", lens=lens([0] * 7)),
    batch(7, 4, 22, "lens beyond the drafts", lens=lens([MAX32, MIN32, -1, 5, 4, 100, 0])),
    batch(7, 4, 23, "lens beyond the draft lens", lens=lens([4] * 7), draft_lens=lens([0, 1, 2, 3, 4, 5, -1])),
    batch(7, 4, 24, "draft lens at the ends of int32", draft_lens=lens([MAX32, MIN32, -1, 0, 4, 3, 2])),
    batch(12, 4, 25, "extreme draft lens", lens=lens([3] * 12), draft_lens=EXTREME),
    batch(12, 40, 26, "extreme draft lens, long rows", lens=lens([37] * 12), draft_lens=EXTREME),
]
CONTEXTS = [
    batch(7, 4, 30, "some sit out", context_lens=lens([-1, 5, 0, -1, -7, 3, MIN32])),
    batch(5, 4, 31, "all sit out", context_lens=lens([-1] * 5, torch.int64)),
    batch(5, 4, 32, "all but the last sit out", context_lens=lens([-1, -1, -1, -1, 0])),
    batch(12, 4, 33, "extreme contexts", context_lens=EXTREME.clamp(max=2**40)),
    batch(3, 256, 34, "the largest contexts", lens=lens([256] * 3), context_lens=lens([MAX32 - 256] * 3)),
    batch(7, 4, 35, "sits out with draft lens", context_lens=lens([-1, 2] * 4)[:7], draft_lens=lens(range(7))),
    batch(40, 3, 36, "a whole program sits out", context_lens=lens([-1] * 33 + [5] * 7)),
]
IDS = [
    batch(3, 3, 40, "ids beyond 32 bits", lens=lens([3] * 3), draft_ids=drafts(3, 3) * 2**33 + 2**31),
    batch(3, 3, 41, "int32 ids at their ends", lens=lens([3] * 3), draft_ids=drafts(3, 3, torch.int32) - 2 + MIN32),
    batch(5, 3, 42, "a pad id", pad_id=7),
    batch(5, 3, 43, "a pad id beyond 32 bits", pad_id=2**40 + 1),
    batch(5, 3, 44, "the largest pad id", pad_id=2**63 - 1),
    batch(0, 3, 45, "a pad id without requests", pad_id=5),
]
CASES = SHAPES + LAYOUTS + LENGTHS + CONTEXTS + IDS


def random_case(seed: int, max_requests: int = 9, max_drafts: int = 9) -> Case:
    """A seeded batch of any kind: values, dtypes, layouts and draft_lens vary independently."""
    rng = random.Random(seed)
    n, k = rng.randint(0, max_requests), rng.randint(0, max_drafts)

    def column(low: int, high: int, *dtypes: torch.dtype) -> Tensor:
        dtype = rng.choice(dtypes)
        extremes = EXTREMES if dtype is torch.int64 else [MIN32, MAX32 - 256]
        values = [rng.choice(extremes) if rng.random() < 0.05 else rng.randint(low, high) for _ in range(2 * n)]
        # A position has 64 bits.
        tensor = lens([min(value, 2**62) for value in values], dtype)
        return rng.choice([tensor[:n], tensor[::2], tensor[n:]])

    ids = drafts(2 * n, 2 * k, rng.choice([torch.int32, torch.int64]))
    columns = ids.T.contiguous().T
    return Case(
        f"seed {seed}",
        column(-1, k + 1, torch.int32),
        rng.choice([ids[:n, :k].clone(), ids[::2, ::2], columns[:n, k:], ids[n:, :k]]),
        rng.choice([-ids[:n, :1], ids[:n, :1] + 7]).flatten() if k else torch.arange(n, dtype=ids.dtype),
        column(-1, 50, torch.int32, torch.int64),
        column(-1, k + 1, torch.int32, torch.int64) if rng.random() < 0.5 else None,
        rng.choice([0, 7]),
    )


# How a capacity can be given, from its value.
CAPACITIES: dict[str, Callable[[int], Any]] = {
    "int": lambda value: value,
    "numpy int32": np.int32,
    "numpy int64": np.int64,
    "__index__": Index,
}
