"""How many drafts of each request are verified in a step."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from tetris_decode.drafting import Drafts
from tetris_decode.metrics import Step
from tetris_kernels import Calibration, Selection, Uncalibrated, select

# What `select` takes.
MAX_LENGTH = 256


class Outcome(NamedTuple):
    """What became of a step's drafts, row by row, for policies that learn from it. All on the drafts' device.

    drafts:  as they were proposed.
    lens:    [N] int32, how many of each row were verified.
    counts, coupled: [N] int32 and bool, as of `tetris_kernels.Accepted`: accepted drafts + 1, or 0 in a row that sat
             out; and whether the first draft that was not verified was accepted all the same.

    Drafts 0 to counts - 1 of a row were tested, the last of these only if it was verified, or is there to be tested by
    the coupled bonus: min(lens + 1, drafts.lens) are, unless one before is rejected. What is behind is not known.
    """

    drafts: Drafts
    lens: Tensor
    counts: Tensor
    coupled: Tensor


class Policy(Protocol):
    """Decides in each step how many drafts are made, and which are verified."""

    @property
    def length(self) -> int:
        """The most drafts that a request ever gets in a step."""

    def num_drafts(self, num_active: int) -> int:
        """How many drafts each request gets in a step with `num_active` requests; 0: the drafter is not called."""

    def select(self, drafts: Drafts, num_active: int) -> Selection:
        """Which of them to verify: a prefix of each request's."""

    def observe(self, step: Step, outcome: Outcome) -> None:
        """What came of the step, in numbers and row by row. A policy that learns from it is of one run."""


class _LearnsNothing:
    def observe(self, step: Step, outcome: Outcome) -> None:
        """Every step is decided by its drafts alone."""


def _check_length(length: int) -> None:
    if not 0 <= length <= MAX_LENGTH:
        raise ValueError(f"length: expected 0 to {MAX_LENGTH} drafts, got {length}")


@dataclass(frozen=True)
class FixedLength(_LearnsNothing):
    """The first `length` drafts of every request; 0 is plain decoding."""

    length: int

    def __post_init__(self) -> None:
        _check_length(self.length)

    def num_drafts(self, num_active: int) -> int:
        return self.length

    def select(self, drafts: Drafts, num_active: int) -> Selection:
        return Selection.from_lens(drafts.lens.clamp(max=self.length).int())


NO_SPECULATION = FixedLength(0)


@dataclass(frozen=True)
class Tetris(_LearnsNothing):
    """The drafts of the batch that are most likely to survive (arXiv 2502.15197, Algorithm 1).

    drafts_per_request: the budget of a step, divided by the requests that are still running; may be below 1.
    length:             drafts made for each request, to choose from.
    min_lens, log_weights: of each row of the batch, whichever request has it, as for `tetris_kernels.select`; where
                        requests take the rows of others, they are not preferences of requests.
    """

    drafts_per_request: float
    length: int
    min_lens: Tensor | None = None
    log_weights: Tensor | None = None

    def __post_init__(self) -> None:
        _check_length(self.length)
        if not 0 <= self.drafts_per_request < math.inf:
            raise ValueError(f"drafts_per_request: expected a number from 0 on, got {self.drafts_per_request}")

    def budget(self, num_active: int) -> int:
        """Drafts verified in a step."""
        return round(self.drafts_per_request * num_active)

    def num_drafts(self, num_active: int) -> int:
        return self.length if self.budget(num_active) else 0

    def select(self, drafts: Drafts, num_active: int) -> Selection:
        return select(
            drafts.logprobs,
            self.budget(num_active),
            draft_lens=drafts.lens,
            min_lens=self.min_lens,
            log_weights=self.log_weights,
        )


class Oracle(Tetris):
    """TETRIS with the true acceptance probabilities in place of the drafter's: the optimum of a step (Theorem 1).

    Only a simulation knows them.
    """

    def select(self, drafts: Drafts, num_active: int) -> Selection:
        if drafts.acceptance is None:
            raise ValueError("drafts: expected acceptance probabilities, which a simulation knows, got None")
        return super().select(drafts._replace(logprobs=drafts.acceptance.log()), num_active)


@dataclass(frozen=True)
class Threshold(_LearnsNothing):
    """Of each request the drafts up to the first that the drafter holds less likely than `confidence`, that one too.

    As transformers' assisted generation stops drafting (`assistant_confidence_threshold`). Here the drafts behind are
    made all the same, since other requests of the batch need theirs: it saves verification, not drafting.
    """

    confidence: float
    length: int

    def __post_init__(self) -> None:
        _check_length(self.length)
        if not 0 <= self.confidence <= 1:
            raise ValueError(f"confidence: expected a probability, got {self.confidence}")

    def num_drafts(self, num_active: int) -> int:
        return self.length

    def select(self, drafts: Drafts, num_active: int) -> Selection:
        limit = math.log(self.confidence) if self.confidence else -math.inf
        # Written so that NaN is doubtful, as it means never for `select`.
        doubtful = ~(drafts.logprobs >= limit)
        # The doubtful draft is verified too: to drop a draft because of what was drawn would bias the output.
        lens = (doubtful.cumsum(1) - doubtful.int() == 0).sum(1)
        return Selection.from_lens(torch.minimum(lens, drafts.lens).int())


class Calibrated:
    """Another policy on calibrated scores, learned from the steps of this run. The other one sees no raw scores.

    Until the calibration is warm, all drafts that the policy may ever ask for are made and verified, whatever its
    budget. What is learned comes from earlier steps, so the output stays the target's with the same scores as before.

    Args:
        policy: decides how many drafts are made and which are verified.
        calibration: of the drafter's kind of scores, and of `policy.length` drafts or more; of one run, and on the
            drafts' device.
    """

    def __init__(self, policy: Policy, calibration: Calibration | Uncalibrated) -> None:
        self.policy, self.calibration = policy, calibration

    @property
    def length(self) -> int:
        return self.policy.length

    def num_drafts(self, num_active: int) -> int:
        return self.policy.num_drafts(num_active) if self.calibration.is_warm else self.length

    def select(self, drafts: Drafts, num_active: int) -> Selection:
        if not self.calibration.is_warm:
            return FixedLength(self.length).select(drafts, num_active)
        return self.policy.select(self._calibrated(drafts), num_active)

    def observe(self, step: Step, outcome: Outcome) -> None:
        drafts = outcome.drafts
        self.policy.observe(step, outcome._replace(drafts=self._calibrated(drafts)))
        if drafts.ids.shape[1]:
            self.calibration.update(
                drafts.logprobs,
                outcome.lens,
                outcome.counts,
                outcome.coupled,
                kind=drafts.kind,
                draft_lens=drafts.lens,
            )

    def _calibrated(self, drafts: Drafts) -> Drafts:
        # Where the drafter was not asked, there are no scores of any kind.
        if not drafts.ids.shape[1]:
            return drafts
        return drafts._replace(logprobs=self.calibration(drafts.logprobs, kind=drafts.kind))
