"""DSD, dynamic speculative decoding: one draft length for the whole batch, by goodput (SmartSpec, arXiv 2406.14066).

As the TETRIS paper compares with it: the acceptance rate is one moving average, the length is decided anew every 20
steps, and not speculating is favoured a little.
"""

from __future__ import annotations

from tetris_decode.drafting import Drafts
from tetris_decode.metrics import Step
from tetris_decode.policies import FixedLength, Outcome
from tetris_kernels import CostTable, Selection

FIRST_RATE = 0.7
KEPT = 0.85  # of the moving average, in each step that verified drafts
INTERVAL = 20  # steps between decisions
FAVOUR = 1.1  # what not to speculate is multiplied by


class Dsd:
    """The draft length of the best goodput, tokens per second, by measured costs; it learns, so one for each run.

    Once it stops speculating nothing is accepted or rejected any more: it begins again only if the batch shrinks or
    grows so far that the costs say so.

    Args:
        costs: of this machine and model.
        length: the longest that is considered.
    """

    def __init__(self, costs: CostTable, length: int = 6) -> None:
        FixedLength(length)  # refuses what no policy takes
        costs.drafting(length)
        self.costs = costs
        self.rate = FIRST_RATE
        self._length = length
        self._current = 0
        self._steps = 0

    @property
    def length(self) -> int:
        return self._length

    def num_drafts(self, num_active: int) -> int:
        if self._steps % INTERVAL == 0:
            self._current = self.best_length(num_active)
        return self._current

    def select(self, drafts: Drafts, num_active: int) -> Selection:
        return FixedLength(self._current).select(drafts, num_active)

    def observe(self, step: Step, outcome: Outcome) -> None:
        self._steps += 1
        if step.accepted + step.rejected:
            # Of those that were tested: what lies behind a rejected draft says nothing.
            self.rate = KEPT * self.rate + (1 - KEPT) * step.accepted / (step.accepted + step.rejected)

    def best_length(self, num_active: int) -> int:
        """The goodput of 0, 1, 2, ... drafts, up to the first drop."""
        best, best_goodput = 0, FAVOUR * self.goodput(0, num_active)
        for length in range(1, self._length + 1):
            goodput = self.goodput(length, num_active)
            if goodput < best_goodput:
                break
            best, best_goodput = length, goodput
        return best

    def goodput(self, length: int, num_active: int) -> float:
        """Expected tokens per second with `length` drafts for each of `num_active` requests."""
        # 1 + a + a^2 + ..., which is (1 - a^(length + 1)) / (1 - a) wherever that is defined.
        expected = sum(self.rate**j for j in range(length + 1))
        seconds = self.costs.verification(num_active * (length + 1)) + self.costs.drafting(length)
        return num_active * expected / seconds
