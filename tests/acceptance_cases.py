"""The named inputs of `accept` that every backend is checked on, and what its tests share."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from cases import INF, NAN, Target, copy
from oracle_acceptance import Request, is_allowed
from torch import Tensor

from tetris_kernels import PackedBatch, accept
from tetris_kernels.types import Accepted

LAST_UNIFORM = 1 - 2.0**-24
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


@dataclass(frozen=True)
class Case:
    """A verified batch on the CPU; `on` gives a copy of the same strides on a device."""

    name: str
    target: Tensor  # [capacity, V]
    lens: tuple[int, ...]  # drafts of each request that are in the batch; -1: it sits out
    ids: Tensor  # [N, K]
    uniforms: Tensor  # [N, K + 1]
    draft: Tensor | None = None  # [N, K, V]
    temperature: float | Tensor = 1.0
    bonus: str = "coupled"
    draft_lens: tuple[int, ...] | None = None

    def starts(self) -> list[int]:
        """cu_seqlens of a batch that holds what fits."""
        ends = [0]
        for n in self.lens:
            ends.append(min(ends[-1] + n + 1, self.target.shape[0]))
        return ends

    def packed(self, device: str = "cpu") -> PackedBatch:
        starts, capacity = self.starts(), self.target.shape[0]
        sizes = [b - a for a, b in itertools.pairwise(starts)]
        owners = [r for r, size in enumerate(sizes) for _ in range(size)]
        draft_lens = [self.ids.shape[1]] * len(self.lens) if self.draft_lens is None else self.draft_lens

        def ints(values: Sequence[int], dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=device)

        unused = ints([0] * capacity, torch.int64)
        return PackedBatch(
            input_ids=unused,
            position_ids=unused,
            request_ids=ints(owners + [-1] * (capacity - len(owners))),
            cu_seqlens=ints(starts),
            lens=ints([max(size - 1, 0) for size in sizes]),
            draft_lens=ints(draft_lens),
            overflow=torch.tensor(sum(n + 1 for n in self.lens) > capacity, device=device),
        )

    def requests(self) -> list[Request]:
        """What the oracle takes."""
        starts, rows, uniforms, ids = self.starts(), self.target.tolist(), self.uniforms.tolist(), self.ids.tolist()
        drafts = [None] * len(ids) if self.draft is None else self.draft.tolist()
        draft_lens = [len(row) for row in ids] if self.draft_lens is None else self.draft_lens
        heat = self.temperature
        heats = heat.tolist() if isinstance(heat, Tensor) else [heat] * len(ids)
        coupled = self.bonus == "coupled"
        return [
            Request(rows[starts[r] : starts[r + 1]], drafts[r], draft_lens[r], row, uniforms[r], heats[r], coupled)
            for r, row in enumerate(ids)
        ]

    def on(self, device: str) -> Case:
        moved: dict[str, Any] = {
            name: copy(value, device)
            for name in ("target", "ids", "uniforms", "draft", "temperature")
            if isinstance(value := getattr(self, name), Tensor)
        }
        return replace(self, **moved)

    def accept(self, backend: str) -> Accepted:
        return accept(
            self.target,
            self.packed(self.target.device.type),
            self.ids,
            self.uniforms,
            draft_logits=self.draft,
            temperature=self.temperature,
            bonus=self.bonus,
            backend=backend,
        )


def as_lists(done: Accepted) -> tuple[list[list[int]], list[int], list[bool]]:
    return done.tokens.tolist(), done.counts.tolist(), done.coupled.tolist()


def run(case: Case, target: Target) -> tuple[list[list[int]], list[int], list[bool]]:
    return as_lists(case.on(target.device).accept(target.backend))


def check(case: Case, target: Target) -> Accepted:
    done = case.on(target.device).accept(target.backend)
    tokens, counts, coupled = as_lists(done)
    for r, request in enumerate(case.requests()):
        assert is_allowed(request, tokens[r], counts[r], coupled[r]), (case.name, r, tokens[r], counts[r], coupled[r])
    return done


def logits(*shape: int, seed: int = 0, spread: float = 2.0, dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * spread).to(dtype)


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed + 7))


def token_ids(n: int, k: int, vocabulary: int, seed: int = 0, dtype: torch.dtype = torch.int32) -> Tensor:
    generator = torch.Generator().manual_seed(seed + 3)
    return torch.randint(vocabulary, (n, k), generator=generator, dtype=dtype)


def likely(case: Case) -> Case:
    """The same with drafts that the target likes, so that tests pass as often as they fail."""
    ids = case.ids.clone()
    for r, start in enumerate(case.starts()[:-1]):
        for j in range(ids.shape[1]):
            if (r + j) % 3 and start + j < case.starts()[r + 1]:
                ids[r, j] = case.target[start + j].argmax()
    return replace(case, ids=ids)


def batch(
    name: str, n: int, k: int, vocabulary: int, seed: int = 0, full: bool = False, spread: float = 2.0, **changes: Any
) -> Case:
    """A batch of ragged requests, with a row of padding."""
    rng = random.Random(seed)
    lens = changes.pop("lens", None) or tuple(rng.randint(0, k) for _ in range(n))
    capacity = sum(m + 1 for m in lens) + 1
    case = Case(
        name,
        logits(capacity, vocabulary, seed=seed, spread=spread),
        lens,
        token_ids(n, k, vocabulary, seed),
        uniform(n, k + 1, seed=seed),
        draft=logits(n, k, vocabulary, seed=seed + 1, spread=spread) if full else None,
    )
    return likely(replace(case, **changes))


def random_case(seed: int) -> Case:
    """Everything that can vary, small: what is drawn from decides which draft logits are near the target's."""
    rng = random.Random(seed)
    n, k, vocabulary = rng.randint(1, 5), rng.randint(0, 5), rng.choice([1, 2, 3, 8, 40])
    full = rng.random() < 0.5
    case = batch(str(seed), n, k, vocabulary, seed, full, rng.choice([0.5, 2.0, 6.0]))
    case = replace(case, lens=tuple(m if rng.random() < 0.9 else -1 for m in case.lens))
    draft_lens = tuple(rng.randint(max(m, 0), k) for m in case.lens)
    heats = [rng.choice([0.0, 0.3, 1.0, 1.0, 2.5, -1.0, NAN, INF]) for _ in range(n)]
    temperature = rng.choice([0.0, 1.0, 0.7, torch.tensor(heats)])
    case = replace(case, bonus=rng.choice(["coupled", "direct"]), draft_lens=draft_lens, temperature=temperature)
    if rng.random() < 0.3:
        case = replace(case, target=case.target[: rng.randint(1, case.target.shape[0])])
    target, draft = case.target, case.draft
    if rng.random() < 0.4:
        target = target.to(rng.choice(DTYPES))
        draft = None if draft is None else draft.to(rng.choice(DTYPES))
    if rng.random() < 0.3:
        target = target.masked_fill(logits(*target.shape, seed=seed + 2) > 1.0, -INF)
    if rng.random() < 0.3:
        target = target.T.contiguous().T
    if draft is not None and rng.random() < 0.3:
        draft = draft.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    ids = case.ids.long() if rng.random() < 0.5 else case.ids.T.contiguous().T
    return replace(case, target=target, draft=draft, ids=ids)


def _with_values(case: Case, slot: int, values: dict[int, float] | float) -> Case:
    target = case.target.clone()
    for token, value in values.items() if isinstance(values, dict) else [(slice(None), values)]:
        target[slot, token] = value
    return replace(case, target=target)


def certain(rest: float) -> Tensor:
    """[1, 4] logits whose last token has probability 1 - rest."""
    return torch.tensor([[math.log(rest / 2), math.log(rest / 4), math.log(rest / 4), math.log1p(-rest)]])


def certainties() -> list[Case]:
    """One request whose draft is nearly certain, with a uniform below, within and above the rounding of 1."""
    cases = []
    for rest in (1e-9, 6e-8, 1e-7, 1e-6, 1e-3):
        for u in (0.5, 1 - 2e-6, 1 - 2.0**-23, LAST_UNIFORM):
            for draw in (0.0, 0.4, 0.8, LAST_UNIFORM):
                uniforms = torch.tensor([[u, draw]])
                name = f"certain to {rest}, {u}, {draw}"
                cases.append(Case(name, certain(rest).repeat(2, 1), (1,), torch.tensor([[3]]), uniforms))
    return cases


TEMPERATURES = torch.tensor([1e-30, 1e-3, 0.5, 1.0, 1e3, 1e30, INF, -1.0, NAN, 0.0, 1e-42, -INF])
MIXED = torch.tensor([0.0, 1.0, 0.5, -1.0, NAN, 2.0, 0.0])

SHAPES = [
    batch(f"V = {v}{', full' if full else ''}", 3, 2, v, seed=v, full=full, lens=(2, 1, 0))
    for v in (1, 2, 7, 8191, 8192, 8193, 20000)
    for full in (False, True)
] + [
    batch("no drafts at all", 3, 0, 9),
    batch("no drafts at all, full", 3, 0, 9, full=True),
    batch("K = 31", 2, 31, 5, lens=(31, 30), spread=0.1),
    batch("K = 32", 2, 32, 5, lens=(32, 31), full=True, spread=0.1),
    batch("K = 256", 1, 256, 3, lens=(256,), spread=0.1),
    batch("K = 256, full", 1, 256, 3, lens=(255,), full=True, spread=0.1),
    batch("K = 256, greedy", 1, 256, 3, lens=(256,), temperature=0.0),
    batch("many requests", 40, 1, 11, full=True),
]
KINDS = [
    batch(f"{heat}, {bonus}, {'full' if full else 'one-hot'}", 7, 5, 30, i, full, bonus=bonus, temperature=temperature)
    for i, (heat, temperature) in enumerate([("greedy", 0.0), ("sampled", 0.8), ("mixed", MIXED)])
    for bonus in ("coupled", "direct")
    for full in (False, True)
] + [
    batch("extreme temperatures", 12, 3, 20, 3, temperature=TEMPERATURES),
    batch("extreme temperatures, full", 12, 3, 20, 3, True, temperature=TEMPERATURES),
    batch("large logits", 6, 4, 30, 5, True, spread=1e4),
    batch("one temperature for all", 6, 4, 30, 5, True, temperature=torch.tensor([0.7]).expand(6)),
    batch("every second temperature", 3, 4, 30, 5, temperature=torch.tensor([0.7, 0, 0, 1, 2, 1])[::2]),
]
LAYOUTS = [
    batch("sitting out", 5, 3, 12, lens=(2, -1, 0, -1, 3)),
    batch("all sit out", 3, 3, 12, lens=(-1, -1, -1)),
    batch("ragged drafts", 5, 4, 12, 1, True, lens=(2, 0, 0, 4, 1), draft_lens=(2, 0, 1, 4, 3)),
    batch("ragged drafts, direct", 5, 4, 12, 1, lens=(2, 0, 0, 4, 1), draft_lens=(2, 0, 1, 4, 3), bonus="direct"),
    batch("draft lens beyond", 4, 3, 12, lens=(3, 1, 0, 2), draft_lens=(9, 2**31 - 1, -5, -(2**31))),
    *[
        replace(batch(f"overflow at {size}", 4, 3, 12, 2, size % 2 == 0, lens=(2, 3, 1, 3)), target=logits(size, 12))
        for size in (0, 1, 3, 4, 8, 12)
    ],
    replace(batch("much padding", 3, 3, 12, 4, True), target=logits(60, 12)),
    Case("no requests", logits(3, 9), (), token_ids(0, 4, 9), uniform(0, 5)),
    Case("nothing", logits(0, 9), (), token_ids(0, 0, 9), uniform(0, 1), logits(0, 0, 9)),
]
