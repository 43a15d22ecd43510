"""The named inputs of `select` that every backend is checked on, and what the tests share to run them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import oracle
import torch
from torch import Tensor

from tetris_kernels import Selection, select

INF, NAN = float("inf"), float("nan")
UNIT = 2.0**-16  # nats: the resolution of the order keys
EXTREMES = [2**40, -(2**40), 2**31, 2**32, 2**32 + 1, -1, 2**63 - 1, -(2**63), -(2**31), 2**31 - 1, 0, 2]


@dataclass(frozen=True)
class Target:
    """One implementation on one device."""

    backend: str
    device: str

    def __str__(self) -> str:
        return f"{self.backend}-{self.device}"


@dataclass(frozen=True)
class Case:
    """A batch on the CPU; `on` gives a copy of the same strides on a device."""

    name: str
    logprobs: Tensor
    draft_lens: Tensor | None = None
    min_lens: Tensor | None = None
    max_lens: Tensor | None = None
    log_weights: Tensor | None = None
    every_budget: bool = False  # worth each budget from 0 to all, where one run is slow too

    @property
    def rows(self) -> dict[str, Any]:
        """The optional tensors that are given."""
        names = ("draft_lens", "min_lens", "max_lens", "log_weights")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    def order_keys(self) -> list[list[int]]:
        """The oracle's order keys."""
        return oracle.batch_keys(self.logprobs.tolist(), **{name: t.tolist() for name, t in self.rows.items()})

    def on(self, device: str) -> Case:
        moved: dict[str, Any] = {name: copy(t, device) for name, t in self.rows.items()}
        return replace(self, logprobs=copy(self.logprobs, device), **moved)

    def select(self, budget: Any, backend: str) -> Selection:
        return select(self.logprobs, budget, **self.rows, backend=backend)


def whole(tensor: Tensor) -> Tensor:
    """All elements of the tensor's storage, also those outside of the tensor."""
    flat = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return flat.set_(tensor.untyped_storage())  # type: ignore[call-overload]  # sizes follow from the storage


def copy(tensor: Tensor, device: str) -> Tensor:
    """The same strides and offset over a copy of the whole storage."""
    storage = whole(tensor).to(device, copy=True)
    return storage.as_strided(tensor.shape, tensor.stride(), tensor.storage_offset())


def expected(keys: list[list[int]], budget: int) -> tuple[list[int], list[int]]:
    lens = oracle.greedy(keys, budget)
    return lens, [sum(lens[:r]) for r in range(len(lens) + 1)]


def some_budgets(total: int) -> list[int]:
    return sorted({0, 1, total // 3, total // 2, 2 * total // 3, max(total - 1, 0), total, total + 1})


def lens(values: Iterable[int], dtype: torch.dtype = torch.int32) -> Tensor:
    return torch.tensor(list(values), dtype=dtype)


def peaked(n: int, k: int, seed: int = 0) -> Tensor:
    """Log-probs as a drafter gives them: many near 0, some far below."""
    return -(torch.rand(n, k, generator=torch.Generator().manual_seed(seed)) ** 4 * 6)


def coarse(n: int, k: int, seed: int = 0, steps: int = 4) -> Tensor:
    """Multiples of 1/4: ties are everywhere, and not all in one key."""
    return -torch.randint(steps, (n, k), generator=torch.Generator().manual_seed(seed)) * 0.25


def certain(n: int, k: int, seed: int = 0) -> Tensor:
    """60 % exact zeros, as log-softmax gives for near-certain tokens."""
    sure = torch.rand(n, k, generator=torch.Generator().manual_seed(seed + 1)) < 0.6
    return torch.where(sure, 0.0, peaked(n, k, seed))


def far(n: int, k: int, never: int, seed: int = 0) -> Tensor:
    """`never` tokens of 64 nats, then a few units: keys beyond 2^24 units that float32 does not tell apart."""
    return torch.cat([torch.full((n, never), -INF), coarse(n, k - never, seed) * 4 * UNIT], 1)


def poisoned(logprobs: Tensor, draft_lens: Tensor) -> Tensor:
    """NaN, infinities and huge values beyond the draft lens."""
    poison = torch.tensor([NAN, INF, -INF, 3e38, -3e38]).repeat(logprobs.numel())[: logprobs.numel()]
    return torch.where(torch.arange(logprobs.shape[1]) < draft_lens[:, None], logprobs, poison.view(logprobs.shape))


SPECIAL = torch.tensor([NAN, INF, -INF, 0.0, -0.0, 1.5, -63.99999, -64.0, -1e30, -1e-42, -UNIT, -UNIT / 2])
RAGGED = lens([3, 0, 5, 1, 0, 2, 5])
EXTREME = lens(EXTREMES, torch.int64)

VALUES = [
    Case("ties everywhere", torch.full((4, 4), -0.5), every_budget=True),
    Case("ties everywhere, searched", torch.full((4, 5), -0.5), every_budget=True),
    Case("all certain", torch.zeros(4, 5)),
    Case("all impossible", torch.full((4, 5), -INF)),
    Case("all NaN", torch.full((3, 4), NAN)),
    Case("special values", SPECIAL.repeat(3, 1)[:, :8] + 0),
    Case("special values in columns", SPECIAL[:, None].repeat(1, 3)),
    Case("positive values", peaked(6, 5).neg()),
    Case("below the resolution", coarse(6, 6) * UNIT),
    Case("coarse grid", coarse(5, 4, seed=3), every_budget=True),
    Case("near-certain", certain(9, 7)),
    Case("distinct", peaked(8, 6)),
    Case("one request", peaked(1, 9)),
    Case("one draft each", peaked(63, 1)),
    Case("identical rows", peaked(1, 6).repeat(6, 1)),
]
SHAPES = [
    Case(f"{n} x {k}", certain(n, k, seed=n + k))
    for n, k in [(0, 0), (0, 5), (6, 0), (1, 1), (63, 3), (5, 33), (4, 64), (2, 256), (65, 4), (1024, 3)]
]
LAYOUTS = [
    Case("transposed", certain(5, 9).T),
    Case("transposed, K = 4", peaked(4, 9).T),
    Case("every second column", peaked(6, 14)[:, ::2]),
    Case("every third row", peaked(20, 8)[::3]),
    Case("every third row and column", peaked(20, 25)[::3, ::3]),
    Case("one row for all", peaked(1, 8).expand(6, 8)),
    Case("one column for all", peaked(6, 1).expand(6, 8)),
    Case("one value for all", peaked(1, 1).expand(6, 8)),
    Case("misaligned base", peaked(1, 49).flatten()[1:].view(6, 8)),
    Case("misaligned rows", peaked(6, 9)[:, :8]),
    Case("middle of a wide row", peaked(6, 24)[:, 4:12]),
    Case("overlapping rows", peaked(1, 20).flatten().as_strided((6, 8), (2, 1), 1)),
    Case("transposed, long rows", certain(40, 7, seed=2).T),
    Case("strided, long rows", certain(21, 60, seed=2)[::3, ::2]),
]
HALVES = [
    Case(f"{name}, {layout}", view(certain(9, 24, seed=5).to(dtype)))
    for name, dtype in [("bf16", torch.bfloat16), ("fp16", torch.float16)]
    for layout, view in {
        "packed": lambda x: x[:, :8].contiguous(),
        "transposed": lambda x: x[:, :7].T,
        "strided": lambda x: x[::2, ::3],
        "misaligned": lambda x: x.flatten()[1:193].view(24, 8),
        "long rows": lambda x: x,
    }.items()
] + [
    Case("bf16, special values", SPECIAL.bfloat16().repeat(2, 1)),
    Case("fp16, special values", SPECIAL.half().repeat(2, 1)),
    Case("bf16 with all arguments", coarse(7, 6).bfloat16(), RAGGED, lens([1] * 7), lens([4] * 7), torch.ones(7)),
]
LENGTHS = [
    Case("ragged with empty rows", certain(7, 5), RAGGED, every_budget=True),
    Case("all rows empty", peaked(4, 3), lens([0] * 4)),
    Case("poison beyond the draft lens", poisoned(certain(7, 5), RAGGED), RAGGED),
    Case("poison in long rows", poisoned(certain(7, 40), RAGGED * 7), (RAGGED * 7).long()),
    Case("extreme draft lens", coarse(12, 4), EXTREME),
    Case("extreme floors", coarse(12, 4), min_lens=EXTREME),
    Case("extreme ceilings", coarse(12, 4), max_lens=EXTREME),
    Case("extreme in long rows", certain(12, 20), EXTREME, EXTREME.roll(5), EXTREME.roll(7)),
    Case("int32 beyond K and below 0", coarse(4, 4), lens([9, -9, 2**31 - 1, -(2**31)])),
    Case("int64 lens", certain(7, 5), RAGGED.long(), RAGGED.flip(0).long(), RAGGED.roll(1).long()),
    Case("every second length", certain(4, 5), RAGGED[::2], lens(range(8))[::2], lens(range(8), torch.int64)[1::2]),
    Case("one length for all", certain(5, 6), lens([4]).expand(5), lens([1], torch.int64).expand(5)),
    Case("floors beyond the budget", certain(6, 5), min_lens=lens([5, 4, 0, 5, 3, 1])),
    Case("floors beyond K", certain(4, 3), min_lens=lens([9, 3, 0, 100])),
    Case("negative floors", certain(4, 3), min_lens=lens([-1, -5, 0, 1])),
    Case("floors of unlikely requests", far(5, 6, 4), min_lens=lens([0, 2, 0, 5, 6])),
    Case("ceilings below floors", certain(5, 6), min_lens=lens([5] * 5), max_lens=lens([3, 0, 6, 5, 1])),
    Case("negative ceilings", certain(4, 3), max_lens=lens([-1, 2, 0, -5])),
]
WEIGHTS = [
    Case(name, logprobs, log_weights=torch.tensor(weights), every_budget=every)
    for name, logprobs, weights, every in [
        ("zero weights", certain(5, 5), [0.0] * 5, False),
        ("weights", certain(5, 5), [0.7, -0.7, 0.0, 2.5, -3.0], False),
        ("weights 1000 nats apart", coarse(4, 4), [700.0, -700.0, 500.0, -500.0], True),
        ("weights 1000 nats apart, searched", coarse(4, 5), [700.0, -700.0, 500.0, -500.0], True),
        ("NaN and infinite weights", certain(5, 4), [NAN, INF, -INF, 0.0, -NAN], False),
        ("tiny weights", torch.full((6, 3), -0.25), [1e-6, -1e-6, 1e-42, -1e-42, 2e-5, -2e-5], False),
        ("weights below the resolution", torch.zeros(4, 4), [UNIT, UNIT / 2, -UNIT / 2, -UNIT], False),
        ("weights that cut below -2^24", coarse(4, 4) * UNIT, [400.0, 400.0, 400.0 + UNIT, 401.0], True),
        ("weights that cut below -2^24, searched", coarse(4, 5) * UNIT, [400.0, 400.0, 400.0 + UNIT, 401.0], True),
        ("weights that cut above 2^24", coarse(4, 4) * UNIT, [-400.0, -400.0, -400.0 + 2 * UNIT, -401.0], True),
        (
            "weights that cut above 2^24, searched",
            coarse(4, 5) * UNIT,
            [-400.0, -400.0, -400.0 + 2 * UNIT, -401.0],
            True,
        ),
        ("weights on both sides of 2^24", coarse(4, 5), [-256.0, 256.0, -256.25, 256.25], False),
        ("weights, long rows", certain(4, 20), [300.0, 300.0, -300.0, 0.5], False),
    ]
] + [
    Case("floors and weights", certain(5, 5), None, lens([0, 2, 1, 5, 0]), None, torch.tensor([9.0, -9, 400, -400, 0])),
    Case(
        "ragged, floors, ceilings, weights",
        coarse(7, 6),
        RAGGED,
        lens([1] * 7),
        lens([4] * 7),
        torch.linspace(-1, 1, 7),
    ),
    Case("every second weight", certain(4, 5), log_weights=torch.linspace(-2, 2, 8)[::2]),
    Case("one weight for all", certain(4, 5), log_weights=torch.tensor([2.0]).expand(4)),
]
LARGE_KEYS = [
    Case("keys beyond 2^24, one unit apart", far(4, 7, never=5), every_budget=True),
    Case(
        "keys around 2^24", torch.cat([torch.full((4, 3), -INF), -64 - coarse(4, 4) * 4 * UNIT], 1), every_budget=True
    ),
    # Keys 2^24 + 1 and 2^24, one float32 value: the lower request has the larger key.
    Case("keys 2^24 and the next", torch.tensor([[-UNIT] + [-INF] * 4, [0.0] + [-INF] * 4]), every_budget=True),
    Case("keys beyond 2^24 in long rows", far(4, 24, never=9)),
    Case(
        "keys beyond 2^24, ragged, weighted",
        far(4, 8, 5),
        lens([8, 6, 0, 7]),
        log_weights=torch.tensor([1.0, 2, 3, -80]),
    ),
    Case("bf16 keys beyond 2^24", far(4, 8, never=5).bfloat16()),
    Case("the largest key", torch.full((2, 256), -INF), log_weights=torch.tensor([-INF, NAN])),
]
CASES = VALUES + SHAPES + LAYOUTS + HALVES + LENGTHS + WEIGHTS + LARGE_KEYS


class Index:
    """Something that is an integer by `__index__` alone."""

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value


# What a budget can be, from its value and the device: by the host, or a tensor of one element.
HOST_BUDGETS: dict[str, Callable[[int, str], Any]] = {
    "int": lambda value, device: value,
    "numpy int64": lambda value, device: np.int64(value),
    "__index__": lambda value, device: Index(value),
}
DEVICE_BUDGETS: dict[str, Callable[[int, str], Tensor]] = {
    "0-d int64": lambda value, device: torch.tensor(value, device=device),
    "[1] int64": lambda value, device: torch.tensor([value], device=device),
    "[1, 1] int64": lambda value, device: torch.tensor([[value]], device=device),
    "element of a column": lambda value, device: torch.tensor([[7, 7], [7, value]], device=device)[1:, 1],
    "stride 0": lambda value, device: torch.tensor(value, device=device).expand(1, 1, 1),
}
SMALL_BUDGETS: dict[str, Callable[[int, str], Any]] = {
    "numpy int32": lambda value, device: np.int32(value),
    "0-d int32": lambda value, device: torch.tensor(value, device=device, dtype=torch.int32),
    "[1] int32": lambda value, device: torch.tensor([value], device=device, dtype=torch.int32),
    "odd int32 element": lambda value, device: torch.tensor([7, value, 7], device=device, dtype=torch.int32)[1],
}
BUDGETS: dict[str, Callable[[int, str], Any]] = HOST_BUDGETS | DEVICE_BUDGETS | SMALL_BUDGETS


def random_case(seed: int, max_requests: int = 9, max_drafts: int = 9) -> Case:
    """A seeded batch of any kind: values, dtype, layout and optional tensors vary independently."""
    rng = random.Random(seed)
    n, k = rng.randint(1, max_requests), rng.randint(1, max_drafts)
    logprobs = rng.choice([peaked, coarse, certain])(2 * n, 2 * k, seed)
    for value in rng.choice([(), (NAN, -INF, 1.0), (-INF,) * 9]):
        logprobs[rng.randrange(2 * n), rng.randrange(2 * k)] = value
    logprobs = logprobs * rng.choice([1.0, 1.0, 60.0, UNIT])
    logprobs = logprobs.to(rng.choice([torch.float32, torch.float32, torch.bfloat16, torch.float16]))
    columns = logprobs.T.contiguous().T
    view = rng.choice([logprobs[:n, :k].clone(), logprobs[::2, ::2], columns[:n, k:], logprobs[n:, :k]])

    def maybe_lens() -> Tensor | None:
        dtype = rng.choice([torch.int32, torch.int64])
        values = [
            rng.choice(EXTREMES[-6:]) if rng.random() < 0.05 and dtype is torch.int64 else rng.randint(-1, k + 1)
            for _ in range(n)
        ]
        return lens(values, dtype) if rng.random() < 0.4 else None

    weights = torch.tensor([rng.choice([0.0, rng.gauss(0, 1), rng.gauss(0, 400)]) for _ in range(n)])
    return Case(f"seed {seed}", view, maybe_lens(), maybe_lens(), maybe_lens(), weights if rng.random() < 0.4 else None)
