"""The named inputs of `score` and `select_from_logits` that every backend is checked on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import oracle_scoring as oracle
import torch
from cases import EXTREMES, INF, NAN, copy, lens
from torch import Tensor

KINDS = ("token", "top", "collision")
HALVES = (torch.bfloat16, torch.float16)
DTYPES = (torch.float32, *HALVES)


@dataclass(frozen=True)
class Case:
    """A batch on the CPU; `on` gives a copy of the same strides on a device."""

    name: str
    logits: Tensor
    ids: Tensor
    temperature: float | Tensor = 1.0
    draft_lens: Tensor | None = None

    @property
    def tensors(self) -> dict[str, Tensor]:
        given = {"logits": self.logits, "ids": self.ids, "temperature": self.temperature, "draft_lens": self.draft_lens}
        return {name: t for name, t in given.items() if isinstance(t, Tensor)}

    @property
    def options(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "draft_lens": self.draft_lens}

    def on(self, device: str) -> Case:
        moved: dict[str, Any] = {name: copy(t, device) for name, t in self.tensors.items()}
        return replace(self, **moved)

    def expected(self, kind: str) -> list[list[float]]:
        n, k = self.ids.shape
        each = self.temperature.tolist() if isinstance(self.temperature, Tensor) else [self.temperature] * n
        lengths = [k] * n if self.draft_lens is None else self.draft_lens.tolist()
        return oracle.score(self.logits.tolist(), self.ids.tolist(), kind, each, lengths)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def normal(n: int, k: int, v: int, seed: int = 0, spread: float = 3.0) -> Tensor:
    return torch.randn(n, k, v, generator=seeded(seed)) * spread


def drawn(n: int, k: int, v: int, seed: int = 0) -> Tensor:
    return torch.randint(0, v, (n, k), generator=seeded(seed + 1))


def batch(name: str, n: int, k: int, v: int, view: Callable[[Tensor], Tensor] = lambda x: x, **options: Any) -> Case:
    logits = view(normal(n, k, v, seed=v))
    return Case(name, logits, drawn(*logits.shape, seed=v), **options)


def near_certain(v: int, gap: float) -> Tensor:
    """[1, 3, V]: one token far above the others, at the start, in the middle and at the end."""
    logits = normal(1, 3, v, seed=7, spread=0.5)
    for j, at in enumerate((0, v // 2, v - 1)):
        logits[0, j, at] = gap
    return logits


def plateau(v: int, depth: float) -> Tensor:
    """[1, 1, V]: one token above equal others, whose sum is off in one direction if they are added one by one."""
    logits = torch.full((1, 1, v), -depth)
    logits[0, 0, v // 3] = 0
    return logits


def spoiled(*values: tuple[int, int, int, float]) -> Tensor:
    logits = normal(3, 2, 20)
    for n, k, v, value in values:
        logits[n, k, v] = value
    return logits


def masked(n: int, k: int, v: int, kept: int) -> Tensor:
    """All but `kept` tokens of each row are -inf, as top-k leaves them."""
    logits = normal(n, k, v, seed=v)
    return logits.masked_fill_(logits < logits.topk(kept).values[..., -1:], -INF)


def misaligned(x: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=x.dtype), x.flatten()])[1:].view(x.shape)


IDS = torch.tensor([[0, 19], [-1, 20], [2**32, 2**32 + 3], [-(2**32) + 3, 2**63 - 1], [-(2**63), 5], [2**31, -(2**31)]])
RAGGED = lens([3, 0, 1, 2, 3, 9, -4])

VALUES = [
    Case("all equal", torch.zeros(2, 3, 16), drawn(2, 3, 16)),
    Case("one token", normal(2, 3, 1), torch.zeros(2, 3, dtype=torch.int64)),
    Case("two equal largest", torch.tensor([5.0, 1.0, 5.0]).expand(2, 2, 3), torch.tensor([[0, 1], [2, 0]])),
    Case("NaN", spoiled((0, 0, 3, NAN), (1, 1, 0, NAN), (2, 0, 19, -NAN)), drawn(3, 2, 20)),
    Case("+inf", spoiled((0, 0, 3, INF), (1, 1, 0, INF), (1, 1, 1, INF)), drawn(3, 2, 20)),
    Case("the drafted token is masked", masked(3, 2, 20, 4), torch.zeros(3, 2, dtype=torch.int64)),
    Case("nothing but -inf", torch.full((2, 2, 9), -INF), torch.zeros(2, 2, dtype=torch.int64)),
    Case("-inf and NaN", torch.tensor([-INF, NAN, -INF]).expand(1, 2, 3), torch.zeros(1, 2, dtype=torch.int64)),
    Case("largest finite values", torch.tensor([[[3e38, 2e38, -3e38], [-3e38, -3e38, 0.0]]]), lens([[0, 2]])),
    Case("tiny values", torch.tensor([[[1e-42, -1e-42, 0.0]]]), lens([[1]])),
    Case("far from 0", normal(2, 2, 300) + 1e4, drawn(2, 2, 300)),
    Case("far below 0", normal(2, 2, 300) - 6e4, drawn(2, 2, 300)),
    Case("near-certain", near_certain(50, 17.0), torch.tensor([[0, 25, 3]])),
    Case("certain", near_certain(50, 100.0), torch.tensor([[0, 25, 3]])),
    Case("ids that no vocabulary has", normal(6, 2, 20), IDS),
    Case("int32 ids that no vocabulary has", normal(3, 2, 20), lens([[-1, 20], [2**31 - 1, -(2**31)], [19, 0]])),
]
SHAPES = [
    batch(f"{n} x {k} x {v}", n, k, v)
    for n, k, v in [(0, 3, 8), (3, 0, 8), (0, 0, 1), (1, 1, 1), (1, 1, 8), (5, 3, 7), (70, 2, 5), (2, 256, 3)]
]
CHUNKED = [
    batch("a chunk less one", 1, 2, 8191),
    batch("a chunk", 1, 2, 8192),
    batch("a chunk and one", 1, 2, 8193),
    batch("a chunk and one piece", 1, 2, 8200),
    batch("two chunks", 1, 2, 16384),
    batch("nine chunks", 1, 1, 8 * 8192 + 4),
    # The largest logit is in the second group of chunks, and what came before it still counts.
    batch("nine chunks, rising", 1, 1, 9 * 8192, lambda x: x / 3 + torch.linspace(0, 3, x.shape[2])),
    Case("chunk of nothing but -inf", masked(1, 2, 16390, 1), drawn(1, 2, 16390)),
    Case("last token of a chunk", normal(1, 2, 8200), lens([[8191, 8192]])),
    Case("near-certain over chunks", near_certain(20000, 25.0), lens([[0, 10000, 5]])),
]
LAYOUTS = [
    batch("drafts first", 4, 3, 16, lambda x: x.transpose(0, 1)),
    batch("vocabulary first", 3, 4, 16, lambda x: x.permute(2, 0, 1).contiguous().permute(1, 2, 0)),
    batch("every second token", 3, 4, 32, lambda x: x[:, :, ::2]),
    batch("every second row", 6, 4, 16, lambda x: x[::2, 1::2]),
    batch("head of wider rows", 3, 2, 48, lambda x: x[:, :, :40]),
    batch("middle of wider rows", 3, 2, 48, lambda x: x[:, :, 8:40]),
    batch("misaligned rows", 3, 2, 41, lambda x: x[:, :, :40]),
    batch("misaligned base", 3, 2, 40, misaligned),
    batch("misaligned requests", 1, 1, 250, lambda x: x.as_strided((3, 2, 40), (82, 40, 1))),
    batch("one row for all", 1, 1, 40, lambda x: x.expand(4, 3, 40)),
    batch("one token for all", 2, 2, 1, lambda x: x.expand(2, 2, 40)),
    batch("overlapping rows", 1, 1, 60, lambda x: x.as_strided((3, 2, 40), (8, 4, 1))),
    Case("transposed ids", normal(4, 3, 16), drawn(3, 4, 16).T),
    Case("transposed int32 ids", normal(4, 3, 16), drawn(3, 4, 16).int().T),
    Case("every second id", normal(4, 3, 16), drawn(8, 6, 16)[1::2, ::2]),
    Case("one id for all", normal(4, 3, 16), torch.tensor([[7]]).expand(4, 3)),
]


def short(dtype: torch.dtype) -> list[Case]:
    name = str(dtype)[6:]
    return [
        batch(f"{name}, misaligned base", 3, 2, 40, lambda x: misaligned(x.to(dtype))),
        batch(f"{name}, rows of pieces of 8 bytes", 3, 2, 44, lambda x: x.to(dtype)[:, :, :40]),
        batch(f"{name}, vocabulary of pieces of 8 bytes", 3, 2, 48, lambda x: x.to(dtype)[:, :, :44]),
    ]


SHORT = (
    [
        replace(case, name=f"{str(dtype)[6:]}, {case.name}", logits=copy(case.logits, "cpu").to(dtype))
        for dtype in HALVES
        for case in [VALUES[3], VALUES[5], VALUES[12], CHUNKED[3], LAYOUTS[0]]
    ]
    + short(torch.bfloat16)
    + short(torch.float16)
)
TEMPERATURES = [
    *(
        batch(f"temperature {t}", 2, 2, 300, temperature=t)
        for t in (0, 0.01, 0.7, 1, 100.0, 1e30, 1e-30, 1e300, 1e-300, 5e-324)
    ),
    batch("temperature 1e-3, far from 0", 2, 2, 300, lambda x: x + 1e4, temperature=1e-3),
    batch("temperatures", 5, 2, 20, temperature=torch.tensor([0.1, 1.0, 2.5, 0.7, 30.0])),
    batch("no temperatures", 7, 2, 20, temperature=torch.tensor([0.0, -0.0, -1.0, NAN, -INF, -1e-42, INF])),
    batch("extreme temperatures", 4, 2, 20, temperature=torch.tensor([1e-38, 1e38, 1e-30, 1e-42])),
    batch("every second temperature", 3, 2, 20, temperature=torch.tensor([0.5, 9, 2, 9, 3])[::2]),
    batch("one temperature", 3, 2, 20, temperature=torch.tensor([0.5]).expand(3)),
    Case("an infinite temperature and masks", masked(2, 2, 20, 5), drawn(2, 2, 20), torch.tensor([INF, 1e38])),
]
LENGTHS = [
    batch("ragged", 7, 3, 20, draft_lens=RAGGED),
    batch("ragged int64", 7, 3, 20, draft_lens=RAGGED.long()),
    batch("extreme lens", 12, 3, 20, draft_lens=lens(EXTREMES, torch.int64)),
    batch("every second length", 4, 3, 20, draft_lens=RAGGED[::2]),
    batch("one length for all", 4, 3, 20, draft_lens=lens([2], torch.int64).expand(4)),
    batch("all rows empty", 4, 3, 20, draft_lens=lens([0] * 4)),
    batch("ragged, two chunks", 3, 2, 8200, draft_lens=lens([1, 0, 2])),
]
CASES = VALUES + SHAPES + CHUNKED + LAYOUTS + SHORT + TEMPERATURES + LENGTHS
