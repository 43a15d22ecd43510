"""The contract in lists and heaps, on Python integers: what everything else is checked against.

`greedy` is the paper's algorithm (TETRIS, arXiv 2502.15197, Algorithm 1): keep the requests' frontiers
in a heap, pop the best, push its successor. `brute_force` tries every choice of prefixes.
"""

from __future__ import annotations

import heapq
import itertools
import math
import struct
from collections.abc import Iterator, Sequence


def float32(x: float) -> float:
    try:
        return struct.unpack("f", struct.pack("f", x))[0]
    except OverflowError:
        return math.copysign(math.inf, x)


def token_cost(logprob: float) -> int:
    """-logprob in units of 2^-16 nats, 0..64 nats, NaN as the worst."""
    nats = math.inf if math.isnan(logprob) else -logprob
    return int(min(max(nats, 0.0), 64.0) * 65536)


def weight_cost(log_weight: float) -> int:
    weight = -500.0 if math.isnan(log_weight) else min(max(log_weight, -500.0), 500.0)
    return int(float32(500.0 - weight) * 65536)


def row_keys(
    logprobs: Sequence[float], draft_len: int, min_len: int, max_len: int, log_weight: float | None
) -> list[int]:
    """The order keys of one request's usable drafts."""
    usable = max(min(draft_len, max_len, len(logprobs)), 0)
    keys, total = [], 0 if log_weight is None else weight_cost(log_weight)
    for position in range(usable):
        total += token_cost(logprobs[position])
        keys.append(-1 if position < min_len else total)
    return keys


def batch_keys(
    logprobs: Sequence[Sequence[float]],
    draft_lens: Sequence[int] | None = None,
    min_lens: Sequence[int] | None = None,
    max_lens: Sequence[int] | None = None,
    log_weights: Sequence[float] | None = None,
) -> list[list[int]]:
    keys = []
    for r, row in enumerate(logprobs):
        draft_len = len(row) if draft_lens is None else draft_lens[r]
        min_len = 0 if min_lens is None else min_lens[r]
        max_len = len(row) if max_lens is None else max_lens[r]
        keys.append(row_keys(row, draft_len, min_len, max_len, None if log_weights is None else log_weights[r]))
    return keys


def greedy(keys: Sequence[Sequence[int]], budget: int) -> list[int]:
    """Drafts kept of each request: the first `budget` in (key, position, request) order."""
    lens = [0] * len(keys)
    frontier = [(row[0], 0, r) for r, row in enumerate(keys) if row]
    heapq.heapify(frontier)
    for _ in range(max(budget, 0)):
        if not frontier:
            break
        _, position, r = heapq.heappop(frontier)
        lens[r] = position + 1
        if position + 1 < len(keys[r]):
            heapq.heappush(frontier, (keys[r][position + 1], position + 1, r))
    return lens


def prefix_choices(keys: Sequence[Sequence[int]], size: int) -> Iterator[tuple[int, ...]]:
    """Every way to keep `size` drafts as one prefix per request."""
    for lens in itertools.product(*(range(len(row) + 1) for row in keys)):
        if sum(lens) == size:
            yield lens


def chosen(keys: Sequence[Sequence[int]], lens: Sequence[int]) -> list[int]:
    """The kept keys in ascending order. If list a is nowhere above list b of the same length, then every
    sum of a decreasing function of the key, such as exp(-key / 65536), is at least as large for a."""
    return sorted(key for row, n in zip(keys, lens, strict=True) for key in row[:n])


def select(logprobs, budget, **rows) -> tuple[list[int], list[int]]:
    """(lens, cu_lens)"""
    lens = greedy(batch_keys(logprobs, **rows), budget)
    return lens, [0, *itertools.accumulate(lens)]
