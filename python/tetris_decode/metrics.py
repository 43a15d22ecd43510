"""What a run of a decoder, or of the simulator, is measured by: one definition of each quantity.

Names and definitions are those of the TETRIS paper (arXiv 2502.15197, section 5) and its code where it has them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np


class Step(NamedTuple):
    """One step of a whole batch. A request that is running is verified once in each step.

    requests: running ones.
    drafted, verified, accepted: drafts, in all.
    rejected: drafts that were tested and rejected, at most one of a request; those behind it were verified in vain.
    coupled: drafts that were not verified and are accepted all the same, by the coupled bonus of
        `tetris_kernels.accept`.
    emitted: tokens, in all. Those after an end do not count, though drafts there do: so it may be less than
        accepted + requests.
    draft_seconds, select_seconds, seconds: wall time of drafting, of the policy, and of the whole step. The first
        two are the host's: on a GPU they may end before the work does.
    """

    requests: int
    drafted: int
    verified: int
    accepted: int
    rejected: int
    coupled: int
    emitted: int
    draft_seconds: float
    select_seconds: float
    seconds: float


class RequestTimes(NamedTuple):
    """When a request had its tokens, in seconds since the run began. All requests arrive when it begins.

    admitted: it got its place in the batch.
    first, last: its first token, and its last one so far.
    tokens: generated ones.
    """

    admitted: float
    first: float
    last: float
    tokens: int


class Timeline:
    """The clock of a run, which only reading prompts and steps advance, and the times of its requests."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.requests: dict[int, RequestTimes] = {}

    def admit(self, requests: Iterable[int], seconds: float) -> None:
        """The prompts of `requests` were read, which yields the first token of each."""
        began = self.seconds
        self.seconds += seconds
        for request in requests:
            self.requests[request] = RequestTimes(began, self.seconds, self.seconds, 1)

    def advance(self, seconds: float, emitted: Iterable[tuple[int, int]]) -> None:
        """A step: `emitted` are requests and how many tokens each got."""
        self.seconds += seconds
        for request, tokens in emitted:
            if tokens:
                times = self.requests[request]
                self.requests[request] = RequestTimes(times.admitted, times.first, self.seconds, times.tokens + tokens)


@dataclass(frozen=True)
class Metrics:
    """Of one run.

    steps, tokens:      steps, and the tokens that they emitted; the first token of each request is not among them.
    drafted, verified, accepted: drafts.
    throughput:         tokens per second of the steps, all requests together. Reading prompts is not in it.
    tokens_per_verification: tokens per request and step; 1 without speculation.
    success_rate:       VSR, verification success rate: accepted / verified drafts, 0..1; None if none was verified.
    target_efficiency:  TER, target efficiency rate: tokens / (verified drafts + 1 a verification), 0..1: what part of
                        the positions that the target computed became text.
    draft_share, select_share: of the time of the steps, 0..1.
    step_seconds:       of a step, the median.
    time_per_output_token, time_per_output_token_p99: seconds per token of a request after its first, the mean and
                        the 99th percentile over requests of two tokens or more; None if there is none.
    latency, latency_p99: seconds from the beginning of the run to a request's last token, over requests.
    """

    steps: int
    tokens: int
    drafted: int
    verified: int
    accepted: int
    throughput: float
    tokens_per_verification: float
    success_rate: float | None
    target_efficiency: float
    draft_share: float
    select_share: float
    step_seconds: float
    time_per_output_token: float | None
    time_per_output_token_p99: float | None
    latency: float
    latency_p99: float

    @classmethod
    def of(cls, steps: Sequence[Step], requests: Iterable[RequestTimes]) -> Metrics:
        """Measure a run. Without a step, what is per step or second is 0.

        Raises:
            ValueError: no request.
        """
        requests = list(requests)
        if not requests:
            raise ValueError("requests: expected at least one, got none")
        total = Step(*(sum(column) for column in zip(*steps, strict=True))) if steps else Step(*[0] * len(Step._fields))
        latencies = [times.last for times in requests]
        per_token = [(t.last - t.first) / (t.tokens - 1) for t in requests if t.tokens > 1]
        return cls(
            steps=len(steps),
            tokens=total.emitted,
            drafted=total.drafted,
            verified=total.verified,
            accepted=total.accepted,
            throughput=_ratio(total.emitted, total.seconds),
            tokens_per_verification=_ratio(total.emitted, total.requests),
            success_rate=total.accepted / total.verified if total.verified else None,
            target_efficiency=_ratio(total.emitted, total.verified + total.requests),
            draft_share=_ratio(total.draft_seconds, total.seconds),
            select_share=_ratio(total.select_seconds, total.seconds),
            step_seconds=float(np.median([step.seconds for step in steps])) if steps else 0.0,
            time_per_output_token=float(np.mean(per_token)) if per_token else None,
            time_per_output_token_p99=float(np.quantile(per_token, 0.99)) if per_token else None,
            latency=float(np.mean(latencies)),
            latency_p99=float(np.quantile(latencies, 0.99)),
        )


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
