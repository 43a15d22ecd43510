"""Chooser: how many drafts of each request a step verifies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from tetris_kernels import CostTable, select
from tetris_vllm.adaptive import AdaptiveBudget
from tetris_vllm.history import AcceptanceHistory
from tetris_vllm.settings import Settings


class Choice(NamedTuple):
    """lens: drafts to verify of each row; held: of each request that waits with drafts; budget: allowed for both."""

    lens: list[int]
    held: list[int]
    budget: int


class Chooser:
    """Selects over the rows of a step by `tetris_kernels.select`, on the host, where vLLM decides lengths.

    Args:
        settings: budget, floor, and from how many requests on there is a budget at all.
        num_drafts: the most that a request gets.
        costs: for an adaptive budget.

    Raises:
        ValueError: costs that no budget can be planned by, or none with an adaptive budget.
    """

    def __init__(self, settings: Settings, num_drafts: int, costs: CostTable | None = None) -> None:
        self.settings = settings
        self.history = AcceptanceHistory()
        self._num_drafts = num_drafts
        self._adaptive = None
        if settings.budget.kind == "adaptive":
            if costs is None:
                raise ValueError("costs: expected a CostTable with an adaptive budget, got None")
            self._adaptive = AdaptiveBudget(costs, num_drafts)

    def choose(
        self,
        requests: Sequence[str],
        usable: Sequence[int],
        scores: Tensor | None = None,
        *,
        held: Sequence[int] = (),
    ) -> Choice | None:
        """How many drafts of each of these requests, in their order, to verify; None: all that there are.

        Args:
            requests: names of all that decode in the step, also those without drafts.
            usable: drafts of each that can be of use; no others are verified, where there is a limit.
            scores: [N, K] float32 on the CPU, K at least the largest of `usable`: logs of acceptance estimates. None:
                by what became of each request's earlier drafts.
            held: drafts of further requests, chosen in an earlier step that had no room for them. They come first, in
                their order; a budget that has fallen since cuts them.
        """
        num_requests = len(requests) + len(held)
        if not num_requests or num_requests < self.settings.min_batch:
            return None
        budget = self._budget(num_requests)
        if budget is None:
            return None
        kept, left = [], budget
        for num_drafts in held:
            kept.append(min(num_drafts, left))
            left -= kept[-1]
        covered = left >= sum(usable)
        if not requests or (covered and self._adaptive is None):
            return Choice(list(usable), kept, budget)

        logprobs = self.history.logprobs(requests, self._num_drafts) if scores is None else scores
        lens = torch.tensor(usable, dtype=torch.int32)
        if self._adaptive is not None:
            self._adaptive.observe(logprobs, lens)
        if covered:
            return Choice(list(usable), kept, budget)
        floor = self.settings.min_drafts
        floors = torch.full_like(lens, floor) if floor else None
        return Choice(select(logprobs, left, draft_lens=lens, min_lens=floors).lens.tolist(), kept, budget)

    def _budget(self, num_requests: int) -> int | None:
        kind, amount = self.settings.budget
        if kind == "all":
            return None
        if self._adaptive is not None:
            return self._adaptive.budget(num_requests)
        return round(amount * num_requests) if kind == "per request" else int(amount)
