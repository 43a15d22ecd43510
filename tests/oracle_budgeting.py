"""expected_accepts and choose_budget in lists, on Python integers and floats rounded to float32.

A float32 operation on doubles, rounded afterwards, is the float32 operation: a double has more than twice the bits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from oracle import batch_keys, float32

Keys = Sequence[Sequence[int]]

MOST_TOKENS = 2**30


def survival(cost: int) -> int:
    """exp(-cost / 65536) in units of 2^-16.

    2^-bits, with bits of cost x log2(e) after 26 binary digits: half as often as there are whole bits, and for the
    fraction a polynomial a - x (b - x (c - ...)), of which each product is truncated after 31 digits; then rounded.
    """
    bits = min(cost, 12 * 65536) * 3098164009 // 2**21
    whole, fraction = divmod(bits, 2**26)
    power = 0
    for coefficient in (2036310, 19783838, 118758180, 515782661, 1488513833, 2147483533):
        power = coefficient - power * fraction // 2**26
    return (power + 2 ** (whole + 14)) // 2 ** (whole + 15)


def sums_by_budget(keys: Keys, costs: Keys) -> list[int]:
    """Of each budget from 0 to all usable drafts the survivals of what is selected, added up."""
    ranked = sorted((key, position, r) for r, row in enumerate(keys) for position, key in enumerate(row))
    return [0, *itertools.accumulate(survival(costs[r][position]) for _, position, r in ranked)]


def batch_sums(logprobs: Sequence[Sequence[float]], **rows: Sequence[float]) -> list[int]:
    """`sums_by_budget` of what the public functions take."""
    return sums_by_budget(batch_keys(logprobs, **rows), batch_keys(logprobs))


def at(sums: list[int], budget: int) -> int:
    return sums[min(max(budget, 0), len(sums) - 1)]


def expected(sums: list[int], budgets: Sequence[int]) -> list[float]:
    return [accepts(at(sums, budget)) for budget in budgets]


def accepts(total: int) -> float:
    return float32(total) / 65536


def choose(
    sums: list[int],
    tokens: Sequence[int],
    seconds: Sequence[float],
    requests: int,
    rule: str = "first drop",
    min_gain: float = 0.0,
) -> int:
    """The budget, from `sums_by_budget`."""
    n = min(max(requests, 0), MOST_TOKENS)
    rooms = [min(max(t, 0), MOST_TOKENS) - n for t in tokens]
    first = next((i for i, room in enumerate(rooms) if room >= 0), None)
    if first is None:
        return 0
    rewards = [float32(float32(n) + accepts(at(sums, room))) for room in rooms]
    factor = float32(1 + min_gain)
    chosen = _first_drop if rule == "first drop" else _argmax
    return max(rooms[chosen(sums, rooms, seconds, rewards, first, factor)], 0)


def _first_drop(
    sums: list[int], rooms: list[int], seconds: Sequence[float], rewards: list[float], first: int, factor: float
) -> int:
    i = first
    while i + 1 < len(rooms):
        following = accepts(at(sums, rooms[i] + 1) - at(sums, rooms[i]))
        gain = float32(float32(following * float32(rooms[i + 1] - rooms[i])) * seconds[i])
        price = float32(float32(factor * float32(seconds[i + 1] - seconds[i])) * rewards[i])
        if not gain > price:
            break
        i += 1
    return i


def _argmax(
    sums: list[int], rooms: list[int], seconds: Sequence[float], rewards: list[float], first: int, factor: float
) -> int:
    rates = [float32(_quotient(reward, cost)) for reward, cost in zip(rewards, seconds, strict=True)]
    known = [i for i, (rate, room) in enumerate(zip(rates, rooms, strict=True)) if room >= 0 and not math.isnan(rate)]
    best = max(known, key=lambda i: (rates[i], -i), default=first)
    return best if rates[best] > float32(factor * rates[first]) else first


def _quotient(a: float, b: float) -> float:
    if b:
        return a / b
    return math.nan if a == 0 or math.isnan(a) else math.copysign(math.inf, b)  # a is not below 0
