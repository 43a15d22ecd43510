"""Lanes: policies on a live model side by side, step by step, in one process, and the ratios of their throughputs.

Each policy has a lane: a decoder of its own over the same queue of prompts. Whichever lane has used the least time
makes the next step, so that a machine that changes its speed does so for all lanes alike. A lane begins in the
middle of texts, as a server that has been running, and its batch stays full.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedModel

from tetris_decode.batch import Batch
from tetris_decode.decoder import Decoder, generate
from tetris_decode.drafting import Drafter
from tetris_decode.goodput import INTERVAL
from tetris_decode.live import differences
from tetris_decode.metrics import Metrics
from tetris_decode.policies import FixedLength, Policy, Tetris
from tetris_decode.sampling import Sampling

# Steps of a lane before it is measured: it allocates, and a policy that learns has decided once by what it saw.
WARM_UP = INTERVAL + 1
RESAMPLES = 2000
SEED = 0


class Ratio(NamedTuple):
    """Of throughputs, block by block: the median, and its 95 % bootstrap interval over blocks.

    That is the machine's noise and that of the texts which these blocks happen to have; not over other prompts.
    """

    median: float
    low: float
    high: float


@dataclass(frozen=True)
class Row:
    """A policy at one batch size and temperature.

    relative:    throughput over that of no speculation.
    to_fixed:    throughput over that of the fixed length of 1 or more whose `relative` is the best here.
    to_best:     the same over `best_budget`, the best of all whose budget is fixed: fixed lengths from 0 on, TETRIS.
    to_chosen:   the same, but each half of the blocks, the even and the odd ones, is compared with what was best in the
                 other half: the best of several that are measured owes some of its lead to the blocks' luck.
    throughputs: of each block, tokens per second.
    texts, equal_texts: requests that this policy and no speculation both finished, and those of them with one text;
                 none if sampled.
    largest_gap: between the target's logits of the two tokens where texts part, relative to the larger one (1 if it
                 is smaller): near 0 where rounding decides. 0 if none parts.
    """

    batch_size: int
    temperature: float
    policy: str
    relative: Ratio
    to_fixed: Ratio | None
    to_best: Ratio
    best_budget: str
    to_chosen: Ratio
    throughputs: list[float]
    metrics: Metrics
    texts: int
    equal_texts: int
    largest_gap: float


class Queue(NamedTuple):
    """Requests in order: prompts and the most tokens of each, the first ones cut into the middle of their texts."""

    prompts: list[list[int]]
    max_new_tokens: list[int]

    @classmethod
    def running(
        cls,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        length: int,
        max_new_tokens: int,
        *,
        batch_size: int,
        temperature: float,
        eos_token_ids: Sequence[int],
    ) -> Queue:
        """`length` requests, `prompts` over and over; the first batch is at 0, 1 / B, 2 / B, ... of its texts."""
        first = [list(prompts[i % len(prompts)]) for i in range(batch_size)]
        texts = generate(model, first, max_new_tokens, temperature=temperature, eos_token_id=eos_token_ids).outputs
        said = [len(text) * i // batch_size for i, text in enumerate(texts)]
        begun = [prompt + text[:n] for prompt, text, n in zip(first, texts, said, strict=True)]
        rest = [list(prompts[i % len(prompts)]) for i in range(batch_size, length)]
        return cls(begun + rest, [max_new_tokens - n for n in said] + [max_new_tokens] * len(rest))


class Lane:
    """A policy's decoder, and what it did block by block. `seconds`: of the steps in the block so far."""

    def __init__(
        self,
        policy: Policy,
        model: PreTrainedModel,
        queue: Queue,
        drafter: Drafter,
        *,
        batch_size: int,
        temperature: float,
        eos_token_ids: Sequence[int],
    ) -> None:
        self.policy = policy
        batch = Batch(
            queue.prompts,
            queue.max_new_tokens,
            num_rows=batch_size,
            eos_token_ids=eos_token_ids,
            num_drafts=policy.length,
            sampling=Sampling(len(queue.prompts), temperature=temperature, device=model.device),
            device=model.device,
        )
        # A drafting model has a cache of one batch.
        self.decoder = Decoder(model, batch, copy.copy(drafter), policy)
        self.seconds = 0.0
        self._ends: list[int] = []
        self._ended_before: set[int] = set()

    def begin(self) -> None:
        """What was before does not count."""
        self._ends.clear()
        self._ended_before = self._ended()
        self.end_block()

    def step(self) -> None:
        self.seconds += self.decoder.step().seconds

    def end_block(self) -> None:
        self._ends.append(len(self.decoder.steps))
        self.seconds = 0.0

    @property
    def throughputs(self) -> NDArray[np.float64]:
        """[blocks] tokens per second."""
        pieces = itertools.pairwise(self._ends)
        blocks = [self.decoder.steps[start:end] for start, end in pieces]
        return np.array([sum(s.emitted for s in block) / sum(s.seconds for s in block) for block in blocks])

    @property
    def metrics(self) -> Metrics:
        """Of all blocks, and of the requests that ended in them; of all that have had a place if none did."""
        generation = self.decoder.generation()
        ended = [generation.requests[request] for request in sorted(self._ended() - self._ended_before)]
        return Metrics.of(generation.steps[self._ends[0] : self._ends[-1]], ended or generation.requests)

    @property
    def texts(self) -> dict[int, list[int]]:
        """What the requests that ended said."""
        outputs = self.decoder.generation().outputs
        return {request: outputs[request] for request in sorted(self._ended())}

    def _ended(self) -> set[int]:
        running = set(self.decoder.batch.requests)
        return {request for request in range(len(self.decoder.timeline.requests)) if request not in running}


def run_lanes(
    lanes: Sequence[Lane], *, blocks: int, block_seconds: float, on_block: Callable[[], None] | None = None
) -> None:
    """All lanes for `blocks` blocks of `block_seconds` of each lane's own time.

    Raises:
        ValueError: the queue was too short to keep the batches full.
    """
    for _ in range(WARM_UP):
        for lane in lanes:
            _step(lane)
    for lane in lanes:
        lane.begin()
    for _ in range(blocks):
        while (lane := min(lanes, key=lambda lane: lane.seconds)).seconds < block_seconds:
            _step(lane)
        for lane in lanes:
            lane.end_block()
        if on_block:
            on_block()


def _step(lane: Lane) -> None:
    if not lane.decoder.batch.num_waiting:
        raise ValueError("queue: expected requests enough to keep the batch full, got too few")
    lane.step()


def rows(
    lanes: dict[str, Lane], model: PreTrainedModel, queue: Queue, *, batch_size: int, temperature: float
) -> list[Row]:
    """What the lanes measured; the first one is no speculation."""
    plain, *_ = lanes.values()

    def gain(name: str) -> float:
        return ratio(lanes[name].throughputs, plain.throughputs).median

    budgets = {name: lane.policy for name, lane in lanes.items() if isinstance(lane.policy, FixedLength | Tetris)}
    best = max(budgets, key=gain)
    chosen = cross_chosen([lanes[name].throughputs for name in budgets], plain.throughputs)
    fixed = [name for name, policy in budgets.items() if isinstance(policy, FixedLength) and policy.length > 0]
    best_fixed = max(fixed, key=gain, default=None)
    found = []
    for name, lane in lanes.items():
        ours, theirs = lane.texts, plain.texts
        both = [] if temperature else [request for request in ours if request in theirs]
        different = differences(
            model, [queue.prompts[i] for i in both], [theirs[i] for i in both], [ours[i] for i in both]
        )
        found.append(
            Row(
                batch_size=batch_size,
                temperature=temperature,
                policy=name,
                relative=ratio(lane.throughputs, plain.throughputs),
                to_fixed=None if best_fixed is None else ratio(lane.throughputs, lanes[best_fixed].throughputs),
                to_best=ratio(lane.throughputs, lanes[best].throughputs),
                best_budget=best,
                to_chosen=ratio(lane.throughputs, chosen),
                throughputs=lane.throughputs.tolist(),
                metrics=lane.metrics,
                texts=len(both),
                equal_texts=len(both) - len(different),
                largest_gap=max((abs(d.logit_gap) / max(abs(d.logit), 1.0) for d in different), default=0.0),
            )
        )
    return found


def cross_chosen(candidates: Sequence[NDArray[np.float64]], plain: NDArray[np.float64]) -> NDArray[np.float64]:
    """[blocks]: of the candidates' throughputs, those of the one whose median ratio to `plain` is the best in the half
    of the blocks, even or odd, that the block is not in."""
    ratios = np.array(candidates) / plain
    found = np.empty_like(plain)
    for half in (0, 1):
        best = int(np.median(ratios[:, 1 - half :: 2], axis=1).argmax())
        found[half::2] = candidates[best][half::2]
    return found


def ratio(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> Ratio:
    """Paired by block."""
    ratios = ours / theirs
    drawn = np.random.default_rng(SEED).integers(len(ratios), size=(RESAMPLES, len(ratios)))
    low, high = np.quantile(np.median(ratios[drawn], axis=1), (0.025, 0.975))
    return Ratio(float(np.median(ratios)), float(low), float(high))
