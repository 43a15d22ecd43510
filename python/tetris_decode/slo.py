"""Deadlines of requests, and none that goes without a verified draft for ever: `tetris_kernels.preferences` at work."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from tetris_decode.drafting import Drafts
from tetris_decode.metrics import Step
from tetris_decode.policies import Outcome, Tetris
from tetris_kernels import Selection, deadline_preferences, update_waited, waiting_weights

# What is thought of a request's drafts before they were tested, and how many tests that counts as.
FIRST_RATE, FIRST_TESTS = 0.7, 2
KEPT = 0.85  # of the moving average of a step's seconds


class Deadlines:
    """TETRIS, after each request has what its deadline needs. It learns, so one for each run.

    Of a static batch: a row's history is that of its request, and no policy is told when another takes the row. By
    when a request must have its tokens is known by the clock of the steps alone; the first step knows no step's time
    and has no floors.

    Args:
        drafts_per_request, length: as of `policies.Tetris`.
        tokens: [N] int32 or int64, how many tokens each row's request must have, after its first.
        seconds: [N] float32, by when, since the first step; inf: it has no deadline.
        out_of_reach: as of `tetris_kernels.deadline_preferences`.
        nats_per_step: weight of each step that a request waits for a verified draft, as of
            `tetris_kernels.waiting_weights`; 0: none.

    Raises:
        TypeError, ValueError: what these refuse.
    """

    def __init__(
        self,
        drafts_per_request: float,
        length: int,
        *,
        tokens: Tensor,
        seconds: Tensor,
        out_of_reach: str = "none",
        nats_per_step: float = 0.0,
    ) -> None:
        self._tetris = Tetris(drafts_per_request, length)
        self._left, self._seconds = tokens, seconds
        self._out_of_reach, self._nats_per_step = out_of_reach, nats_per_step
        self._step_seconds = 0.0
        self._tested = torch.full_like(seconds, FIRST_TESTS)
        self._accepted = FIRST_RATE * self._tested
        self._waited = torch.zeros_like(tokens, dtype=torch.int32)
        # Refuses at once what it would refuse in a step.
        self._preferences(step_seconds=1.0)

    @property
    def length(self) -> int:
        return self._tetris.length

    def num_drafts(self, num_active: int) -> int:
        return self._tetris.num_drafts(num_active)

    def select(self, drafts: Drafts, num_active: int) -> Selection:
        policy = self._preferences(self._step_seconds) if self._step_seconds else self._tetris
        return policy.select(drafts, num_active)

    def observe(self, step: Step, outcome: Outcome) -> None:
        drafts, lens, counts, coupled = outcome
        took_part = counts > 0
        # The drafts up to the first rejected one were tested, at most one of them that was not verified.
        passed = ((counts - 1) + coupled).where(took_part, 0)
        rejected = (passed < torch.minimum(lens + 1, drafts.lens)) & took_part
        self._accepted = self._accepted + passed
        self._tested = self._tested + passed + rejected
        self._left = self._left - counts
        self._seconds = self._seconds - step.seconds
        self._waited = update_waited(self._waited, lens, drafts.lens)
        kept = KEPT if self._step_seconds else 0.0
        self._step_seconds = kept * self._step_seconds + (1 - kept) * step.seconds

    def _preferences(self, step_seconds: float) -> Tetris:
        """The policy of this step."""
        wanted = deadline_preferences(
            self._left,
            self._seconds,
            self._accepted / self._tested,
            step_seconds=step_seconds,
            num_drafts=self.length,
            out_of_reach=self._out_of_reach,
        )
        waiting = waiting_weights(self._waited, nats_per_step=self._nats_per_step)
        return replace(self._tetris, min_lens=wanted.min_lens, log_weights=wanted.log_weights + waiting)
