"""Replay recorded drafts under any policy, by a clock that a cost table drives.

The steps are those of `decoder.Decoder`: rows of a batch, refilled from a queue in order, the same numbers drafted,
verified, accepted and emitted; `traces` says where that is exact. No model is run. A step takes

    costs.verification(running requests + verified drafts) + costs.drafting(drafts made of each)

seconds, so the policy's own time is free unless the table's seconds have it in them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from tetris_decode.drafting import Drafts
from tetris_decode.metrics import Metrics, RequestTimes, Step
from tetris_decode.policies import Outcome, Policy
from tetris_decode.traces import Run
from tetris_kernels import CostTable

IntArray = NDArray[np.int64]


class Simulation(NamedTuple):
    """steps, requests: as of `decoder.Generation`, requests in the queue's order.

    queue:         [Q] int64, the recorded request that each of them is.
    verifications: [Q] int64, the steps that each was in.
    accepted:      [Q] int64, its accepted drafts.
    """

    steps: list[Step]
    requests: list[RequestTimes]
    queue: IntArray
    verifications: IntArray
    accepted: IntArray

    @property
    def metrics(self) -> Metrics:
        return Metrics.of(self.steps, self.requests)


def make_queue(num_recorded: int, num_requests: int, seed: int, *, resample: bool = False) -> IntArray:
    """[num_requests] int64: recorded requests in shuffled order, all of them before one comes again.

    resample: of a bootstrap sample of the recorded ones instead: as many, drawn with replacement.
    """
    generator = np.random.default_rng(seed)
    requests = generator.choice(num_recorded, num_recorded) if resample else np.arange(num_recorded)
    rounds = [generator.permutation(requests) for _ in range(-(-num_requests // num_recorded))]
    return np.concatenate(rounds)[:num_requests]


class Replay:
    """A run, laid out to be replayed many times.

    Args:
        run: the recorded drafts.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.starts = run.num_rows.cumsum() - run.num_rows
        leading = np.logical_and.accumulate(run.accepted, axis=1).sum(1)
        # Row 0 is there even of a run without rows: finished requests of a batch point at it.
        room = max(len(leading), 1)
        self.leading = np.zeros(room, np.int64)
        self.leading[: len(leading)] = leading
        self.ids, self.log_q = (
            torch.zeros(room, run.num_drafts, dtype=dtype) for dtype in (torch.int64, torch.float32)
        )
        self.ids[: len(leading)] = torch.from_numpy(run.ids.astype(np.int64))
        self.log_q[: len(leading)] = torch.from_numpy(run.log_q)

    @cached_property
    def acceptance(self) -> torch.Tensor:
        """[M, K] float32."""
        acceptance = torch.zeros_like(self.log_q)
        acceptance[: len(self.run.acceptance)] = torch.from_numpy(self.run.acceptance).float()
        return acceptance

    def drafts(self, rows: IntArray, lens: IntArray, num_drafts: int) -> Drafts:
        """The first `num_drafts` of each of the rows, `lens` of which there are."""
        at = torch.from_numpy(rows)
        ids, log_q, acceptance = (
            column.index_select(0, at)[:, :num_drafts] for column in (self.ids, self.log_q, self.acceptance)
        )
        return Drafts(ids, log_q, torch.from_numpy(lens), acceptance=acceptance)


def simulate(
    replay: Replay | Run,
    policy: Policy,
    costs: CostTable,
    *,
    batch_size: int,
    queue: Sequence[int] | IntArray | None = None,
    prefill_seconds: float = 0.0,
    on_step: Callable[[Step], None] | None = None,
) -> Simulation:
    """Run the requests of a queue to their ends, `batch_size` at a time.

    Args:
        replay: what was recorded.
        policy: fresh, if it is one that learns.
        costs: of a step.
        batch_size: rows; a request that waits takes the place of one that ends.
        queue: recorded requests in the order of their admission, as often as wanted; each one once by default.
        prefill_seconds: of reading one prompt; those that are admitted together take the sum.
        on_step: called after each step.

    Raises:
        ValueError: a batch_size below 1, a request that was not recorded, an empty queue, negative prefill_seconds, a
            policy of more drafts than were recorded, or than the costs have.
    """
    replay = replay if isinstance(replay, Replay) else Replay(replay)
    entries = np.asarray(np.arange(replay.run.num_requests) if queue is None else queue, np.int64)
    _check(replay.run, policy, batch_size, entries, prefill_seconds)
    state = _State(replay, entries, min(batch_size, len(entries)), prefill_seconds)
    num_rows = len(state.rows)
    # A batch has no more tokens than this, and a call of the table takes longer than the look-up.
    verification = [costs.verification(tokens) for tokens in range(num_rows * (policy.length + 1) + 1)]
    drafting = [costs.drafting(length) for length in range(policy.length + 1)]
    steps: list[Step] = []
    while num_active := state.num_active:
        num_drafts = policy.num_drafts(num_active)
        lens = state.draft_lens(num_drafts)
        drafts = replay.drafts(state.rows, lens, num_drafts)
        selected = policy.select(drafts, num_active).lens.numpy()
        leading = np.minimum(replay.leading[state.rows], lens)
        accepted = np.minimum(leading, selected)
        coupled = leading > selected
        # What is accepted behind the end of a text is not emitted.
        emitted = np.minimum(accepted + 1, state.left)
        num_drafted, num_verified, num_accepted, num_rejected, num_coupled, num_emitted = (
            np.array([lens, selected, accepted, accepted < selected, coupled, emitted]).sum(1).tolist()
        )
        draft_seconds = drafting[num_drafts]
        step = Step(
            requests=num_active,
            drafted=num_drafted,
            verified=num_verified,
            accepted=num_accepted,
            rejected=num_rejected,
            coupled=num_coupled,
            emitted=num_emitted,
            draft_seconds=draft_seconds,
            select_seconds=0.0,
            seconds=verification[num_active + num_verified] + draft_seconds,
        )
        steps.append(step)
        counts = np.where(state.left > 0, accepted + 1, 0).astype(np.int32)
        policy.observe(step, Outcome(drafts, *map(torch.from_numpy, (selected, counts, coupled))))
        state.advance(step.seconds, emitted, accepted)
        if on_step:
            on_step(step)
    return Simulation(steps, state.times(), entries, state.verifications, state.accepted)


class _State:
    """The rows of the batch, and of each request of the queue what has come of it.

    entry: [N] which of the queue is in each row. rows: [N] its row of the run, 0 if it has ended.
    left:  [N] tokens until its text ends. room: [N] tokens until its limit; both 0 if it has ended.
    """

    def __init__(self, replay: Replay, queue: IntArray, num_rows: int, prefill_seconds: float) -> None:
        run = replay.run
        self._first_row, self._num_tokens, self._limits = replay.starts[queue], run.num_tokens[queue], run.limits[queue]
        self._prefill_seconds = prefill_seconds
        self._seconds = 0.0
        self._admitted, self._first, self._last = np.zeros((3, len(queue)))
        self.verifications, self.accepted = np.zeros((2, len(queue)), np.int64)
        self.entry, self.rows, self.left, self.room = np.zeros((4, num_rows), np.int64)
        self.num_active = 0
        self._next = 0
        self._refill()

    def draft_lens(self, num_drafts: int) -> IntArray:
        """[N]: drafts of each; the last token needs none."""
        lens: IntArray = np.clip(self.room - 1, 0, num_drafts)
        return lens

    def advance(self, seconds: float, emitted: IntArray, accepted: IntArray) -> None:
        """A step is over; the next requests take the places of those that ended."""
        self._seconds += seconds
        running = self.left > 0
        entry = self.entry[running]
        self._last[entry] = self._seconds
        self.verifications[entry] += 1
        self.accepted[entry] += accepted[running]
        self.rows += emitted
        self.left -= emitted
        self.room -= emitted
        num_left = int(np.count_nonzero(self.left))
        if num_left < self.num_active:
            self.num_active = num_left
            self._refill()

    def times(self) -> list[RequestTimes]:
        columns = self._admitted, self._first, self._last, self._num_tokens
        return [RequestTimes(*times) for times in zip(*(column.tolist() for column in columns), strict=True)]

    def _refill(self) -> None:
        ended = np.flatnonzero(self.left == 0)
        self.rows[ended] = self.room[ended] = 0
        while len(ended) and self._next < len(self._num_tokens):
            free = ended[: len(self._num_tokens) - self._next]
            entry = np.arange(self._next, self._next + len(free))
            self._next += len(free)
            self._admitted[entry] = self._seconds
            self._seconds += self._prefill_seconds * len(free)
            self._first[entry] = self._last[entry] = self._seconds
            # Reading a prompt yields the first token, which may be the last.
            self.entry[free], self.left[free] = entry, self._num_tokens[entry] - 1
            goes_on = self.left[free] > 0
            self.rows[free] = np.where(goes_on, self._first_row[entry], 0)
            self.room[free] = np.where(goes_on, self._limits[entry] - 1, 0)
            ended = np.flatnonzero(self.left == 0)
        self.num_active = len(self.left) - len(ended)


def _check(run: Run, policy: Policy, batch_size: int, queue: IntArray, prefill_seconds: float) -> None:
    if batch_size < 1:
        raise ValueError(f"batch_size: expected 1 or more, got {batch_size}")
    if not len(queue) or not (0 <= queue.min() <= queue.max() < run.num_requests):
        got = f"{queue.min()} to {queue.max()}" if len(queue) else "none"
        raise ValueError(f"queue: expected requests of 0 to {run.num_requests - 1}, got {got}")
    if not 0 <= prefill_seconds < np.inf:
        raise ValueError(f"prefill_seconds: expected a number from 0 on, got {prefill_seconds}")
    if policy.length > run.num_drafts:
        raise ValueError(f"policy: expected at most the {run.num_drafts} recorded drafts, got {policy.length}")
