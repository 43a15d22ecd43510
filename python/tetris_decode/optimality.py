"""Theorem 2 of the TETRIS paper as an experiment: is the best choice of each step the best in the long run?

TETRIS takes in each step the drafts of the most expected tokens (Theorem 1). Theorem 2 says that this is optimal over
all steps too if drafts at one position share one acceptance rate. The paper's text was not at hand, and "position" can
be read in several ways, so each is tried, on batches so small that dynamic programming over all ways of selecting gives
the exact optimum. True acceptance rates are known to both, drafting is free, and a draft is accepted independently of
all else.

acceptance[r, p, j] is the rate of the draft at depth j of request r when that has p tokens; the readings:

    depth:    rates[j]         of the place among a step's drafts
    request:  rates[r]         of the request alone
    text:     rates[p + j]     of the place in the text, the same in all requests
    free:     rates[r, p + j]  of the place in each request's own text: nothing is shared
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float64]
IntArray = NDArray[np.int64]

READINGS = {
    "depth": "the place among a step's drafts",
    "request": "the request alone",
    "text": "the place in the text, the same in all requests",
    "free": "the place in each request's own text",
}
OBJECTIVES = {"tokens": "expected tokens in a number of steps", "steps": "expected steps until all have ended"}
# Rounding of sums of some thousand terms.
NO_LOSS = 1e-10


@dataclass(frozen=True)
class Setting:
    """num_requests N with num_drafts K drafts each in a step, `capacity` of which are verified.

    horizon: steps, for the objective "tokens". length: tokens of a text, for "steps".
    """

    num_requests: int = 2
    num_drafts: int = 3
    capacity: int = 3
    horizon: int = 4
    length: int = 10

    def __post_init__(self) -> None:
        for name in ("num_requests", "num_drafts", "capacity", "horizon", "length"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected 1 or more, got {getattr(self, name)}")
        states = self.num_positions("tokens") ** self.num_requests
        if states > 100_000:
            raise ValueError(f"setting: expected at most 100,000 states, got {states:,}")

    def num_positions(self, objective: str) -> int:
        """P: how many tokens a request may have, 0 to P - 1. With "steps" it has ended at the last."""
        return self.length + 1 if objective == "steps" else (self.horizon + 1) * (self.num_drafts + 1) + 1


@dataclass(frozen=True)
class Loss:
    """What greedy selection loses over random instances, in percent of the optimum.

    with_loss: how many of the `instances` have any.
    """

    reading: str
    objective: str
    instances: int
    with_loss: int
    mean: float
    worst: float


def experiment(
    setting: Setting, instances: int, seed: int, *, on_instance: Callable[[], None] | None = None
) -> list[Loss]:
    """Random rates, uniform on 0..1, and random beginnings of up to K tokens, for each reading and objective."""
    losses = []
    for reading, objective in product(READINGS, OBJECTIVES):
        generator = np.random.default_rng(seed)
        percents = []
        for _ in range(instances):
            acceptance = make_rates(reading, setting, objective, generator)
            beginning = tuple(generator.integers(0, setting.num_drafts + 1, setting.num_requests).tolist())
            percents.append(100 * loss(acceptance, setting.capacity, setting.horizon, objective, beginning))
            if on_instance:
                on_instance()
        found = sum(percent > 100 * NO_LOSS for percent in percents)
        losses.append(Loss(reading, objective, instances, found, float(np.mean(percents)), max(percents)))
    return losses


def make_rates(reading: str, setting: Setting, objective: str, generator: np.random.Generator) -> FloatArray:
    """[N, P, K] acceptance rates of one instance."""
    num_requests, num_drafts, num_positions = setting.num_requests, setting.num_drafts, setting.num_positions(objective)
    shape = num_requests, num_positions, num_drafts
    at = np.arange(num_positions)[:, None] + np.arange(num_drafts)
    match reading:
        case "depth":
            rates = generator.random(num_drafts)[None, None, :]
        case "request":
            rates = generator.random(num_requests)[:, None, None]
        case "text":
            rates = generator.random(num_positions + num_drafts)[at][None]
        case "free":
            rates = generator.random((num_requests, num_positions + num_drafts))[:, at]
        case _:
            raise ValueError(f"reading: expected one of {', '.join(READINGS)}, got {reading}")
    return np.broadcast_to(rates, shape)


def loss(acceptance: FloatArray, capacity: int, horizon: int, objective: str, beginning: Sequence[int]) -> float:
    """What greedy loses against the optimum, a part of the latter."""
    best, greedy = values(acceptance, capacity, horizon, objective)
    at = tuple(beginning)
    gained = [float(value[at]) - (sum(at) if objective == "tokens" else 0) for value in (best, greedy)]
    return abs(gained[1] - gained[0]) / gained[0] if gained[0] else 0.0


def values(acceptance: FloatArray, capacity: int, horizon: int, objective: str) -> tuple[FloatArray, FloatArray]:
    """Of the optimum and of greedy, [P] * N each, by the tokens that each request has in the beginning.

    "tokens": the expected tokens after `horizon` steps, those of the beginning among them; exact for beginnings that
    leave room, (K + 1) * horizon below P - 1. "steps": the expected steps until all have P - 1 tokens, less is better.

    Args:
        acceptance: [N, P, K] of each request, tokens that it has, and depth.
        capacity: drafts verified in a step, at most.
        horizon: steps, for "tokens".
        objective: "tokens" or "steps".
    """
    if objective not in OBJECTIVES:
        raise ValueError(f"objective: expected one of {', '.join(OBJECTIVES)}, got {objective}")
    num_requests, num_positions, num_drafts = acceptance.shape
    ends = objective == "steps"
    moves = transitions(acceptance)
    # How many drafts are of use: the last token needs none.
    usable = np.clip(num_positions - 2 - np.arange(num_positions), 0, num_drafts) if ends else None
    chosen = greedy_lens(acceptance, capacity, usable)
    actions = [lens for lens in product(range(num_drafts + 1), repeat=num_requests) if sum(lens) <= capacity]
    grid = np.indices((num_positions,) * num_requests)
    running = (grid < num_positions - 1).any(0)
    value = greedy = np.zeros(running.shape) if ends else grid.sum(0).astype(np.float64)
    # Whoever runs gets a token in each step: after P - 1 steps all have ended.
    for _ in range(num_positions - 1 if ends else horizon):
        after = [_expected(value, moves, lens) for lens in actions]
        after_greedy = np.zeros(running.shape)
        for lens in actions:
            here = (chosen == np.array(lens)).all(-1)
            if here.any():
                after_greedy[here] = _expected(greedy, moves, lens)[here]
        value = running + np.minimum.reduce(after) if ends else np.maximum.reduce(after)
        greedy = running + after_greedy if ends else after_greedy
    return value, greedy


def greedy_lens(acceptance: FloatArray, capacity: int, usable: IntArray | None = None) -> IntArray:
    """[P, ..., P, N]: drafts of each request that TETRIS selects, by the tokens that each of them has.

    As `tetris_kernels.select`, with exact products: of equal ones the shallower draft, then the lower request.

    Args:
        acceptance: [N, P, K].
        capacity: of a step.
        usable: [P], how many drafts a request has, by its tokens; K by default.
    """
    num_requests, num_positions, num_drafts = acceptance.shape
    survival = acceptance.cumprod(2)
    if usable is not None:
        survival = np.where(np.arange(num_drafts) < usable[:, None], survival, -1.0)
    states = np.indices((num_positions,) * num_requests).reshape(num_requests, -1)
    # Position by position, so that the order of equal ones is that of `select`.
    offered = np.stack([survival[r, states[r]] for r in range(num_requests)], axis=2)
    flat = offered.reshape(len(offered), -1)
    best = np.argsort(-flat, axis=1, kind="stable")[:, :capacity]
    taken = np.take_along_axis(flat, best, 1) >= 0
    lens = np.stack([((best % num_requests == r) & taken).sum(1) for r in range(num_requests)], axis=1)
    return lens.reshape(*(num_positions,) * num_requests, num_requests)


def transitions(acceptance: FloatArray) -> FloatArray:
    """[N, K + 1, P, P]: from p tokens to others, by the drafts that are verified of the request.

    It gets the accepted drafts, the leading ones, and one token more; P - 1 is where it stays.
    """
    num_requests, num_positions, num_drafts = acceptance.shape
    moves = np.zeros((num_requests, num_drafts + 1, num_positions, num_positions))
    survival = np.concatenate([np.ones((num_requests, num_positions, 1)), acceptance.cumprod(2)], axis=2)
    for lens, p in product(range(num_drafts + 1), range(num_positions)):
        for count in range(lens + 1):
            probability = survival[:, p, count] - (survival[:, p, count + 1] if count < lens else 0)
            moves[:, lens, p, min(p + count + 1, num_positions - 1)] += probability
    return moves


def _expected(value: FloatArray, moves: FloatArray, lens: Sequence[int]) -> FloatArray:
    """The value after a step that verifies `lens` drafts of the requests."""
    for request, length in enumerate(lens):
        value = np.moveaxis(np.tensordot(moves[request, length], value, axes=(1, request)), 0, request)
    return value
