"""Recorded drafts: what was drafted, how likely the drafter held it, and whether it was accepted."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import resources

import numpy as np
from numpy.typing import NDArray

NUM_DRAFTS = 8
SOURCE = "SmolLM2-135M-Instruct on 48 prompts"
DRAFTERS = "26 of the target's 30 layers, n-grams, and a distilled model of 4 layers"


@dataclass(frozen=True)
class Run:
    """One run of speculative decoding: M rows, one for each step of each of R requests.

    Rows are ordered by (request, step). Requests end at different steps, so there is no [steps, R] array.

    name:      drafter@temperature.
    num_steps: [R]    int64, rows of each request.
    log_q:     [M, 8] float32, natural log of the draft probability of the drafted token, given its prefix.
    accepted:  [M, 8] bool, the outcome of the acceptance test of each draft, given that all before it were
               accepted. Recorded for all 8 drafts, also past the first rejection.
    """

    name: str
    num_steps: NDArray[np.int64]
    log_q: NDArray[np.float32]
    accepted: NDArray[np.bool_]

    @property
    def num_requests(self) -> int:
        return len(self.num_steps)

    @property
    def request(self) -> NDArray[np.int64]:
        """[M] int64: the request of each row."""
        return np.repeat(np.arange(self.num_requests), self.num_steps)


def load_runs() -> dict[str, Run]:
    """The runs that come with the package, by name. data/README.md says how they were recorded."""
    path = resources.files("tetris_decode").joinpath("data/traces.npz")
    with path.open("rb") as file, np.load(file, allow_pickle=False) as data:
        names, num_steps = data["run_name"], data["num_steps"].astype(np.int64)
        log_q, packed = data["log_q"], data["accepted"]
    accepted = np.unpackbits(packed, axis=1, count=NUM_DRAFTS).astype(np.bool_)
    ends = num_steps.sum(1).cumsum()
    return {
        str(name): Run(str(name), steps, log_q[end - steps.sum() : end], accepted[end - steps.sum() : end])
        for name, steps, end in zip(names, num_steps, ends, strict=True)
    }
