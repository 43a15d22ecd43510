"""The inputs of the comparison: sizes x budgets x kinds, seeded.

Floats cannot tell survivals apart that are closer than their rounding, and neither can keys of 2^-16 nats. Where the
kind allows it, seeds are tried until the cut is clear, so that every form must give the same answer.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

SHAPES = ((8, 4), (64, 8), (256, 8), (1024, 8), (1024, 16))
FRACTIONS = (0.1, 0.5, 0.9)
MARGIN = 5e-5  # nats: more than rounding does to a float32 sum or product of 32 tokens
SEEDS = 1000


@dataclass(frozen=True)
class Input:
    """A batch on a device, and how many of its drafts may be kept."""

    kind: str
    fraction: float  # of the real drafts
    seed: int
    logprobs: Tensor  # [N, K] float32
    budget: int
    draft_lens: Tensor | None  # [N] int32

    @property
    def clear(self) -> bool:
        """Whether floats tell the drafts on both sides of the cut apart."""
        return KINDS[self.kind][1] is _is_clear

    @property
    def name(self) -> str:
        num_requests, num_drafts = self.logprobs.shape
        return f"{num_requests}x{num_drafts} {self.kind} {self.fraction:.0%}"

    def __str__(self) -> str:
        return self.name

    def on(self, device: str) -> Input:
        lens = None if self.draft_lens is None else self.draft_lens.to(device)
        return replace(self, logprobs=self.logprobs.to(device), draft_lens=lens)


def grid(
    shapes: tuple[tuple[int, int], ...] = SHAPES, fractions: tuple[float, ...] = FRACTIONS, kinds: tuple[str, ...] = ()
) -> Iterator[Input]:
    """Every combination; all kinds unless some are named. On the CPU."""
    for shape, kind, fraction in itertools.product(shapes, kinds or tuple(KINDS), fractions):
        yield make(kind, *shape, fraction)


def make(kind: str, num_requests: int, num_drafts: int, fraction: float, start: int = 0) -> Input:
    """The input of the first seed from `start` on whose cut is as the kind wants it."""
    draw, accepts = KINDS[kind]
    for seed in range(start, start + SEEDS):
        generator = torch.Generator().manual_seed(seed)
        logprobs = draw(num_requests, num_drafts, generator)
        lens = None
        if kind == "ragged":
            lens = torch.randint(num_drafts + 1, (num_requests,), generator=generator, dtype=torch.int32)
        total = logprobs.numel() if lens is None else int(lens.sum())
        budget = max(round(fraction * total), 1)
        if budget < total and accepts(logprobs, lens, budget):
            return Input(kind, fraction, seed, logprobs, budget, lens)
    raise RuntimeError(
        f"no seed of {start} and {SEEDS - 1} more gives {kind} {num_requests}x{num_drafts} {fraction} the cut it wants"
    )


def _smooth(num_requests: int, num_drafts: int, generator: torch.Generator) -> Tensor:
    """Exponentially distributed costs of half a nat on average."""
    return -torch.empty(num_requests, num_drafts).exponential_(2.0, generator=generator)


def _near_certain(num_requests: int, num_drafts: int, generator: torch.Generator) -> Tensor:
    """60 % of the tokens at exactly 0, which log-softmax in bfloat16 gives from p = 0.9997 on."""
    logprobs = _smooth(num_requests, num_drafts, generator)
    return logprobs.masked_fill(torch.rand(num_requests, num_drafts, generator=generator) < 0.6, 0.0)


def _all_tied(num_requests: int, num_drafts: int, generator: torch.Generator) -> Tensor:
    """Every survival is 1: the keys are all equal."""
    return torch.zeros(num_requests, num_drafts)


def _coarse(num_requests: int, num_drafts: int, generator: torch.Generator) -> Tensor:
    """Multiples of a quarter nat."""
    return _smooth(num_requests, num_drafts, generator).mul(4).round().div(4)


def _sorted_costs(logprobs: Tensor, lens: Tensor | None) -> tuple[Tensor, Tensor]:
    """Costs of the real drafts in ascending order as doubles, and their fixed-point keys in the same order."""
    real = torch.ones(logprobs.shape, dtype=torch.bool)
    if lens is not None:
        real = torch.arange(logprobs.shape[1]) < lens[:, None]
    costs, order = logprobs.double().neg().cumsum(1)[real].sort()
    keys = logprobs.neg().mul(65536).long().cumsum(1)[real]
    return costs, keys[order]


def _is_clear(logprobs: Tensor, lens: Tensor | None, budget: int) -> bool:
    """Both orders keep the same drafts, by a margin."""
    costs, keys = _sorted_costs(logprobs, lens)
    return bool(costs[budget] - costs[budget - 1] > MARGIN and keys[budget:].min() > keys[:budget].max())


def _is_tied(logprobs: Tensor, lens: Tensor | None, budget: int) -> bool:
    """The last draft that is kept and the first that is not have equal survival."""
    costs, _ = _sorted_costs(logprobs, lens)
    return bool(costs[budget] == costs[budget - 1])


def _any(logprobs: Tensor, lens: Tensor | None, budget: int) -> bool:
    return True


Draw = Callable[[int, int, torch.Generator], Tensor]
Accepts = Callable[[Tensor, "Tensor | None", int], bool]
KINDS: dict[str, tuple[Draw, Accepts]] = {
    "smooth": (_smooth, _is_clear),
    "near-certain": (_near_certain, _any),
    "all tied": (_all_tied, _any),
    "ragged": (_smooth, _is_clear),
    "coarse": (_coarse, _is_tied),
}
