"""plan_budget: how many drafts the next step verifies, from an earlier step's expectation and measured costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from tetris_kernels.costs import CostTable


class Plan(NamedTuple):
    """budget: drafts to verify; 0: none are to be made. goodput: tokens per second that it promises."""

    budget: int
    goodput: float


def plan_budget(
    expected: Sequence[float],
    budgets: Sequence[int],
    costs: CostTable,
    num_requests: int,
    draft_length: int,
    *,
    current: int | None = None,
    min_gain: float = 0.02,
) -> Plan:
    """The budget of the highest goodput, tokens per second: on the host, for a step whose drafts are not made yet.

    With n requests, each of which emits one token besides its accepted drafts, the goodput of a budget C is
    `(n + expected(C)) / (costs.verification(n + C) + costs.drafting(draft_length))`, and of a budget of 0, for which
    nothing is drafted, `n / costs.verification(n)` (goodput as in SmartSpec, arXiv 2406.14066, with one budget for the
    batch in place of a length). The result is the best of all `budgets` and 0, not a local one.

    It is lossless with every way of selecting and every bonus that is lossless with a fixed budget, since `expected` is
    of an earlier step: whatever this step draws, its budget is settled before.

    Args:
        expected: of each budget, the accepted drafts that `tetris_kernels.expected_accepts` expects, or a mean over
            steps of it. A device's vector comes to the host without waiting by a `Readback`.
        budgets: as many, rising; such as `costs.budgets(num_requests, num_drafts)` gives, which fill buckets.
        costs: measured on this machine with this model.
        num_requests: that will run.
        draft_length: drafts that are made for each of them if the budget is not 0.
        current: the budget that is in use; by default, or if it is not among them, 0.
        min_gain: 0.02 is 2 %: what another budget must promise over the current one, 0 included. Smaller gains are
            the noise of estimates, and changing to and fro costs.

    Returns:
        Plan of a budget, one of `budgets` or 0, and its goodput, by which plans of several draft lengths compare.

    Raises:
        TypeError: costs that are no CostTable.
        ValueError: a flat table; budgets that do not rise from 0 or more, or are not as many as `expected`; expected
            drafts that are no numbers from 0 on; num_requests below 0, min_gain below 0; more drafts or tokens than
            the table has.
    """
    if not isinstance(costs, CostTable):
        raise TypeError(f"costs: expected a CostTable, got {type(costs).__name__}")
    costs.require_rising()
    if len(expected) != len(budgets):
        raise ValueError(f"expected: expected one value for each of {len(budgets)} budgets, got {len(expected)}")
    if any(budget <= before for before, budget in zip([-1, *budgets], budgets, strict=False)):
        raise ValueError(f"budgets: expected rising integers from 0 on, got {list(budgets)}")
    if not all(0 <= value < math.inf for value in expected):
        raise ValueError(f"expected: expected numbers from 0 on, got {list(expected)}")
    if num_requests < 0:
        raise ValueError(f"num_requests: expected 0 or more, got {num_requests}")
    if not 0 <= min_gain < math.inf:
        raise ValueError(f"min_gain: expected a number from 0 on, got {min_gain}")

    drafting = costs.drafting(draft_length)
    goodputs = {0: num_requests / costs.verification(num_requests)}
    for budget, accepted in zip(budgets, expected, strict=True):
        if budget:
            seconds = costs.verification(num_requests + budget) + drafting
            goodputs[budget] = (num_requests + accepted) / seconds
    best = max(goodputs, key=goodputs.__getitem__)  # the smallest of equal ones, as they rise
    used = current if current in goodputs else 0
    chosen = best if goodputs[best] > (1 + min_gain) * goodputs[used] else used
    return Plan(chosen, goodputs[chosen])
