"""AdaptiveBudget: the number of drafts that pays most, by measured costs and by what earlier steps' drafts promised."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tetris_kernels import CostTable, MeanExpectation, expected_accepts, plan_budget

FIRST = 1.0  # drafts per request, until something is known
MEMORY = 512  # verifications (requests x steps) in which the weight of an expectation falls to a half
EVERY = 8  # steps from one look at what drafts promise to the next


class AdaptiveBudget:
    """`tetris_kernels.plan_budget`, from a mean over earlier steps: the budget is settled before its drafts are looked
    at, and sampled output stays the target's.

    vLLM has made a step's drafts before the budget is known, so drafting is paid whatever is verified.

    Args:
        costs: of steps of this engine. The time of `num_drafts` drafts is added to every step.
        num_drafts: made for each request.
        min_gain: what another budget must promise over the one in use.

    Raises:
        ValueError: a flat table, or one without the cost of that many drafts.
    """

    def __init__(self, costs: CostTable, num_drafts: int, *, min_gain: float = 0.02) -> None:
        costs.require_rising()
        drafting = costs.drafting(num_drafts)
        seconds = tuple(seconds + drafting for seconds in costs.seconds)
        self._costs = replace(costs, seconds=seconds, draft_seconds=(0.0,))
        self._num_drafts, self._min_gain = num_drafts, min_gain
        self._mean = MeanExpectation(num_drafts, memory=MEMORY / EVERY)  # one step of EVERY is added
        self._steps = 0
        self._planned_for = -1
        self._budget = 0

    def budget(self, num_requests: int) -> int:
        """Of the next step."""
        if self._mean.is_empty:
            return min(round(FIRST * num_requests), self._budgets(num_requests)[-1])
        if num_requests != self._planned_for:
            self._planned_for, self._budget = num_requests, self._plan(num_requests)
        return self._budget

    def observe(self, draft_logprobs: Tensor, draft_lens: Tensor) -> None:
        """This step's drafts, [N, K] and [N], for the steps to come; after its budget was asked for."""
        self._steps += 1
        if (self._steps - 1) % EVERY or not len(draft_lens):
            return
        budgets = self._mean.budgets(*draft_logprobs.shape)
        ends = torch.tensor(budgets, dtype=torch.int32)
        expected = expected_accepts(draft_logprobs, ends, draft_lens=draft_lens)
        self._mean.add(expected.tolist(), budgets, len(draft_lens))
        self._planned_for = -1

    def _plan(self, n: int) -> int:
        if self._costs.staircase and n > self._costs.tokens[-1]:
            return 0  # beyond the last bucket nothing was measured
        budgets = self._budgets(n)
        expected = self._mean.expected(budgets, n)
        plan = plan_budget(expected, budgets, self._costs, n, 0, current=self._budget, min_gain=self._min_gain)
        return plan.budget

    def _budgets(self, n: int) -> list[int]:
        return self._costs.budgets(n, n * self._num_drafts)
