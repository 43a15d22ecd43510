"""Preferences in fractions and loops, one request at a time: what `tetris_kernels.preferences` is checked against."""

from __future__ import annotations

import math
from fractions import Fraction

REACHED = Fraction(999_999, 1_000_000)


def need(tokens_left: float, seconds_left: float, step_seconds: float) -> Fraction | float:
    """Tokens that are needed of a step: 0 if there is nothing to do or no deadline, inf if it is too late."""
    values = tokens_left, seconds_left, step_seconds
    if any(map(math.isnan, values)) or tokens_left <= 0 or step_seconds <= 0 or seconds_left == math.inf:
        return Fraction(0)
    if seconds_left <= 0 or math.inf in values:
        return math.inf
    return Fraction(tokens_left) * Fraction(step_seconds) / Fraction(seconds_left)


def fewest_drafts(need: Fraction | float, acceptance_rate: float, num_drafts: int) -> int:
    """Of which `need` tokens are expected; num_drafts + 1 if there are none."""
    rate = Fraction(0) if math.isnan(acceptance_rate) else Fraction(min(max(acceptance_rate, 0.0), 1.0))
    # In steps of 2^-80, far finer than a double's, so that fractions stay short.
    survival = expected = Fraction(1)
    for drafts in range(num_drafts + 1):
        if expected >= need * REACHED:
            return drafts
        survival = Fraction(math.floor(survival * rate * 2**80), 2**80)
        expected += survival
    return num_drafts + 1


def deadline(
    tokens_left: float,
    seconds_left: float,
    acceptance_rate: float,
    step_seconds: float,
    num_drafts: int,
    out_of_reach: str,
    max_log_weight: float,
) -> tuple[int, float]:
    """(min_len, log_weight)"""
    needed = need(tokens_left, seconds_left, step_seconds)
    drafts = fewest_drafts(needed, acceptance_rate, num_drafts)
    if drafts > num_drafts and out_of_reach == "none":
        return 0, 0.0
    return min(drafts, num_drafts), min(math.log(max(needed, 1)), max_log_weight)


def waited(before: int, verified: int, drafts: int | None) -> int:
    """Steps in a row without a verified draft, one step later."""
    before = min(max(before, 0), 2**31 - 1)
    if drafts is not None and drafts <= 0:
        return before
    return 0 if verified > 0 else min(before + 1, 2**31 - 1)


def longest_wait(survival_nats: float, nats_per_step: float, num_requests: int, num_drafts: int, budget: int) -> int:
    """The bound of `waiting_weights`."""
    served_each_step = math.ceil(budget / num_drafts)
    patience = math.floor((min(survival_nats, 64) + 2**-12) / nats_per_step) + 1
    return patience + (num_requests - 1) // served_each_step
