"""MeanExpectation: what earlier steps' drafts promised, averaged, for the planning of later steps."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from tetris_kernels import checks
from tetris_kernels.costs import MAX_ENDS

GRID = 16  # points for each draft


class MeanExpectation:
    """A mean over steps of the accepted drafts to expect, by the number that is verified; both are of one request, so
    that batches of all sizes add to it and are planned by it.

    Steps count by their requests. One step's drafts say little of the next one's where requests are few, and the older
    a step is, the less it says.

    Args:
        num_drafts: the most of a request that are made, 1 to 256.
        memory: verifications (requests x steps) in which the weight of a step falls to a half.

    Raises:
        TypeError, ValueError: numbers that are none of these.
    """

    def __init__(self, num_drafts: int, *, memory: float = 256.0) -> None:
        num_drafts = checks.as_size("num_drafts", num_drafts, checks.MAX_DRAFTS)
        if not num_drafts:
            raise ValueError("num_drafts: expected at least 1, got 0")
        if not 0 < memory < math.inf:
            raise ValueError(f"memory: expected a number above 0, got {memory}")
        self.memory = memory
        self._verified = np.arange(GRID * num_drafts + 1) / GRID
        self._accepted = np.zeros(len(self._verified))
        self._weight = 0.0

    @property
    def is_empty(self) -> bool:
        """Whether nothing was added yet."""
        return not self._weight

    @staticmethod
    def budgets(num_requests: int, num_drafts: int) -> list[int]:
        """What to ask `tetris_kernels.expected_accepts` about: at most 64 budgets from 0 to all drafts, rising."""
        most = num_requests * num_drafts
        return sorted({most * i // (MAX_ENDS - 1) for i in range(MAX_ENDS)})

    def add(self, expected: Sequence[float], budgets: Sequence[int], num_requests: int) -> None:
        """A step's expectation.

        Args:
            expected: of each budget the accepted drafts to expect; no more are expected of larger ones.
            budgets: as many, rising from 0.
            num_requests: that drafted; without any nothing is added.

        Raises:
            ValueError: expected drafts and budgets that are not as many.
        """
        if len(expected) != len(budgets):
            raise ValueError(f"expected: expected one value for each of {len(budgets)} budgets, got {len(expected)}")
        if not num_requests:
            return
        accepted = np.asarray(expected, dtype=np.float64) / num_requests
        found = np.interp(self._verified, np.asarray(budgets) / num_requests, accepted)
        self._weight = 0.5 ** (num_requests / self.memory) * self._weight + num_requests
        self._accepted += (found - self._accepted) * num_requests / self._weight

    def expected(self, budgets: Sequence[int], num_requests: int) -> list[float]:
        """The accepted drafts to expect of each budget in a batch of so many requests, for `plan_budget`; 0 if nothing
        was added."""
        per_request = np.interp(np.asarray(budgets) / max(num_requests, 1), self._verified, self._accepted)
        return [float(accepted) for accepted in num_requests * per_request]
