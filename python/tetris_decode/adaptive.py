"""A budget that follows the load, the drafts and the machine: TETRIS with a budget that is chosen step by step.

Each step's drafts say how many of the best C of them will be accepted (`expected_accepts`); a mean over the last steps
is what the next budget is planned by (`plan_budget`), before its drafts are made. So the budget is fixed when a step
begins, and the output is as lossless as with any fixed budget. Or the plan decides only whether to draft, and the
drafts of the step themselves how many of them are verified (`choose_budget`).
"""

from __future__ import annotations

import torch

from tetris_decode.drafting import Drafts
from tetris_decode.metrics import Step
from tetris_decode.policies import FixedLength, Outcome
from tetris_kernels import (
    CostTable,
    MeanExpectation,
    Plan,
    Readback,
    Selection,
    choose_budget,
    expected_accepts,
    plan_budget,
    select,
)

FIRST_BUDGET = 1.0  # verified per request, until the first expectation has come
MEMORY = 512  # verifications (requests x steps) in which the weight of an expectation falls to a half
LENGTHS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192)  # that are considered, and the longest
EVERY = 8  # steps from one question what drafts promise to the next
PROBED = 0.005  # of the time: what may be spent on drafts that the plan does not make


class Adaptive:
    """The budget of the best goodput by measured costs and by what the last steps' drafts promised, 0 included, and the
    number of drafts to make for it.

    While fewer drafts are made than there might be, all of them are made for half a percent of the time, to see what
    they promise. With a budget of 0 nothing is verified then; the coupled bonus tests the first draft of each request
    all the same. It learns, so one for each run. What drafts promise is what their scores say: wrap it in `Calibrated`
    where scores are no probabilities of acceptance.

    budget, num_made: that are planned for the step.

    Args:
        costs: of this machine, model and drafter, such as `tetris-decode profile` measures.
        length: the most drafts that are made for each request, to choose from.
        min_gain: what another budget must promise over the one in use, see `plan_budget`.
        same_step: where the plan is to draft, more than it says is verified as long as that pays by `choose_budget`,
            by its rule of the first drop: it knows this step's drafts, which pays most for few requests. Never less:
            measured costs have dear steps with flat stretches behind, at which the first drop stops and the plan does
            not. Lossless with the coupled bonus, which the decoder has: the later one of a budget that was settled
            before and a stopping rule is a stopping rule.

    Raises:
        ValueError: a length that no policy takes or the costs do not have; a flat table of costs, and for `same_step`
            one of too many points.
    """

    def __init__(self, costs: CostTable, length: int, *, min_gain: float = 0.02, same_step: bool = False) -> None:
        FixedLength(length)  # refuses what no policy takes
        costs.drafting(length)
        costs.require_rising()
        if same_step:
            costs.ends()
        self.costs, self.min_gain, self.same_step = costs, min_gain, same_step
        self.budget: int | None = None
        self.num_made = length
        self._length = length
        self._lengths = [made for made in LENGTHS if made < length] + [length]
        # For each number of drafts to choose from; one step of EVERY is added.
        self._means = {made: MeanExpectation(length, memory=MEMORY / EVERY) for made in self._lengths}
        self._readback = Readback()
        self._planned_for = -1
        self._most = 0  # drafts that costs are known of
        self._steps = self._asked = self._learned = 0
        self._seconds_since = 0.0
        self._ends: tuple[torch.Tensor, torch.Tensor] | None = None

    @property
    def length(self) -> int:
        return self._length

    def num_drafts(self, num_active: int) -> int:
        if self._learn() or num_active != self._planned_for:
            self._plan(num_active)
            self._planned_for = num_active
        made = self._planned_drafts
        if made < self._length:
            if not self._most:
                return made
            self._seconds_since += self.costs.verification(num_active)
            more = self.costs.drafting(self._length) - self.costs.drafting(made)
            if more > PROBED * self._seconds_since:
                return made
        self._seconds_since = 0.0
        return self._length

    def select(self, drafts: Drafts, num_active: int) -> Selection:
        if drafts.ids.shape[1]:
            # More drafts than planned were made to be asked about.
            if self._steps % EVERY == 0 or drafts.ids.shape[1] > self._planned_drafts:
                self._ask(drafts, num_active)
            self._steps += 1
        planned = self.budget or 0
        budget: int | torch.Tensor = planned
        if planned and self.same_step:
            tokens, seconds = self._ends_on(drafts.logprobs.device)
            chosen = choose_budget(drafts.logprobs, tokens, seconds, requests=num_active, draft_lens=drafts.lens)
            budget = chosen.clamp(min=planned)
        return select(drafts.logprobs, budget, draft_lens=drafts.lens)

    def observe(self, step: Step, outcome: Outcome) -> None:
        """What was accepted is for a calibration to learn from."""

    @property
    def _planned_drafts(self) -> int:
        return self.num_made if self.budget else 0

    def _ends_on(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        if self._ends is None or self._ends[0].device != device:
            self._ends = self.costs.ends(device)
        return self._ends

    def _ask(self, drafts: Drafts, num_active: int) -> None:
        """Of this step's drafts, what would be accepted of the best ones: for the steps to come."""
        lengths = [made for made in self._lengths if made <= drafts.ids.shape[1]]
        # Up to all drafts, whatever they cost: later there may be fewer requests.
        budgets = MeanExpectation.budgets(num_active, lengths[-1])
        ends = torch.tensor(budgets, dtype=torch.int32).to(drafts.logprobs.device, non_blocking=True)
        expected = [expected_accepts(drafts.logprobs, ends, draft_lens=drafts.lens.clamp(max=made)) for made in lengths]
        self._asked += 1
        self._readback.push(torch.stack(expected), (self._asked, num_active, lengths, budgets))

    def _learn(self) -> bool:
        """Whether something new has come."""
        arrival = self._readback.latest()
        if arrival is None or arrival.tag[0] == self._learned:
            return False
        self._learned, num_active, lengths, budgets = arrival.tag
        for made, expected in zip(lengths, arrival.values.tolist(), strict=True):
            self._means[made].add(expected, budgets, num_active)
        return True

    def _plan(self, num_active: int) -> None:
        self._most = self.costs.budgets(num_active, num_active * self._length)[-1]
        if not self._most or any(mean.is_empty for mean in self._means.values()):
            self.budget = min(round(FIRST_BUDGET * num_active), self._most)
            return
        plans = {made: self._plan_of(made, num_active) for made in self._lengths}
        best = max(plans, key=lambda made: plans[made].goodput)
        if plans[best].goodput > (1 + self.min_gain) * plans[self.num_made].goodput:
            self.num_made = best
        self.budget = plans[self.num_made].budget

    def _plan_of(self, made: int, num_active: int) -> Plan:
        budgets = self.costs.budgets(num_active, num_active * made)
        return plan_budget(
            self._means[made].expected(budgets, num_active),
            budgets,
            self.costs,
            num_active,
            made,
            current=self.budget if made == self.num_made else None,
            min_gain=self.min_gain,
        )
