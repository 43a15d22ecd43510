"""What a benchmark has to know of a way to select drafts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TypeAlias

from torch import Tensor

# (draft_logprobs [N, K] float32 contiguous, budget, draft_lens [N] int32 or None) -> (lens, cu_lens), as
# `tetris_kernels.select` gives them: int32, on the input's device, fresh tensors.
Select: TypeAlias = Callable[[Tensor, "int | Tensor", "Tensor | None"], tuple[Tensor, Tensor]]


class Unavailable(RuntimeError):
    """This machine lacks what a peer needs; the message says what."""


@dataclass(frozen=True)
class Peer:
    """One way to select.

    Exact peers compare survival in the contract's fixed-point keys, in its order of ties, and make these keys within
    the measured time: their `lens` are those of `tetris_kernels.select` on every input. The others compare floats as
    published; they agree where no two survivals are close at the cut.
    """

    name: str
    source: str  # whose idea it is
    load: Callable[[], Select]  # imports and compiles what it needs; raises Unavailable
    devices: frozenset[str]
    exact: bool = True
    device_budget: bool = False  # takes a budget as a 0-d tensor on the device, too
    max_entries: int | None = None  # largest N x K that compiles in reasonable time

    def __str__(self) -> str:
        return self.name

    @cached_property
    def select(self) -> Select:
        """Loaded on first use."""
        return self.load()

    def takes(self, device: str, num_requests: int, num_drafts: int) -> bool:
        """Whether it runs on the device and takes a batch of that shape."""
        fits = self.max_entries is None or num_requests * num_drafts <= self.max_entries
        return device in self.devices and fits
