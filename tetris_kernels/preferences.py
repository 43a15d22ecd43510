"""Floors and weights for `select`: requests with deadlines, and requests that have waited.

None of these functions is given this step's drafts: preferences that knew them would bias sampled output (README,
What is lossless). They are made of clocks and of what came of earlier steps.
"""

from __future__ import annotations

import math
import numbers
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from tetris_kernels import checks
from tetris_kernels.types import Preferences

OUT_OF_REACH = ("none", "all")
LOG_4 = math.log(4)

# A need counts as reached from here on, so that 1 + 0.7 reaches 1.7 though no binary number is 0.7.
REACHED = 1 - 1e-6

MAX_WAITED = 2**31 - 1


def deadline_preferences(
    tokens_left: Tensor,
    seconds_left: Tensor,
    acceptance_rate: Tensor,
    *,
    step_seconds: float | Tensor,
    num_drafts: SupportsIndex,
    out_of_reach: str = "none",
    max_log_weight: float = LOG_4,
) -> Preferences:
    """First what each deadline needs, then throughput: the idea of AdaServe (arXiv 2501.12162), by the past alone.

    A request needs so many tokens of each step until its deadline, and gets the fewest drafts as its floor of which,
    by its acceptance rate, as many tokens are to be expected; the rest of the budget goes where `select` sends it. In
    a loop::

        for r in range(N):
            need = tokens_left[r] * step_seconds / seconds_left[r]
            expected, drafts = 1.0, 0  # the token that a verification yields anyway
            while expected < need and drafts <= num_drafts:
                drafts += 1
                expected += acceptance_rate[r] ** drafts
            if drafts > num_drafts:  # out of reach
                need, drafts = (0, 0) if out_of_reach == "none" else (need, num_drafts)
            min_lens[r] = drafts
            log_weights[r] = min(log(max(need, 1)), max_log_weight)

    A rate of x tokens per second is x tokens left and 1 second left. If what is behind is to be caught up with within
    t seconds, it is t seconds left, and the tokens that are due by then and not emitted yet.

    A need is an average: a request that is given just that much is early or late by chance, so aim before the deadline.
    Floors count towards the budget of `select`, which takes shallow ones first if it cannot hold them all. Preferences
    must not depend on this step's drafts, or sampled output is biased: the acceptance rate is that of earlier steps.

    Args:
        tokens_left: [N] int32, int64 or float32, tokens that each request is still to emit by its deadline. Nothing
            is needed where it is 0, negative or NaN.
        seconds_left: [N] float32, until its deadline; inf or NaN: it has none. 0 and less: it is too late.
        acceptance_rate: [N] float32, how often its drafts were accepted that were tested, so far. Clamped to 0..1;
            NaN counts as 0.
        step_seconds: how long a step takes: a number, or a float32 tensor of one element on the same device, which
            is not read by the host. A tensor of NaN or of nothing above 0 takes all needs away.
        num_drafts: drafts that each request has at most in a step, 0 to 256.
        out_of_reach: what a request gets whose need even `num_drafts` drafts do not reach. "none": neither floor nor
            weight, so that what is lost takes nothing from those that can still make it. "all": all its drafts.
        max_log_weight: cap of the weights in nats, 0 or more; 0: floors alone. Twice the need is twice the value: so a
            request gets more where its drafts are good, and its floor falls in later steps.

    Returns:
        Preferences of `min_lens` [N] int32 in 0..num_drafts and `log_weights` [N] float32 in 0..max_log_weight,
        fresh tensors, nothing mutated. A need counts as reached from 0.999999 of it on.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape or device, step_seconds that are not above 0, num_drafts out of range, an unknown
            out_of_reach, a max_log_weight that is negative or not finite.
    """
    checks.check_tensor("tokens_left", tokens_left, (*checks.INTS, torch.float32), ("requests",))
    like, shape = ("tokens_left", tokens_left), tuple(tokens_left.shape)
    for name, values in (("seconds_left", seconds_left), ("acceptance_rate", acceptance_rate)):
        checks.check_like(name, values, (torch.float32,), shape, "one value per request", like)
    step = _as_seconds(step_seconds, like)
    most = checks.as_size("num_drafts", num_drafts, checks.MAX_DRAFTS)
    checks.check_choice("out_of_reach", out_of_reach, OUT_OF_REACH)
    cap = _as_nats("max_log_weight", max_log_weight)

    # In float64, so that devices which round differently give the same floors and, as float32, the same weights.
    # 0 * inf and the like are NaN, which is no need: 0 tokens left, or no deadline. -0.0 seconds are 0.
    need = tokens_left.double().clamp(min=0) * (step / seconds_left.double().clamp(min=0).abs())
    need = need.masked_fill(need.isnan(), 0.0)
    rate = acceptance_rate.double().nan_to_num(nan=0.0).clamp(0, 1)
    drafts = torch.arange(most + 1, device=rate.device)
    expected = (rate.unsqueeze(1) ** drafts).cumsum(1)
    lens = (expected < need.unsqueeze(1) * REACHED).sum(1, dtype=torch.int32)
    if out_of_reach == "none":
        is_lost = lens > most
        lens, need = lens.masked_fill(is_lost, 0), need.masked_fill(is_lost, 0.0)
    return Preferences(lens.clamp(max=most), need.clamp(min=1).log().clamp(max=cap).float())


def update_waited(waited: Tensor, lens: Tensor, draft_lens: Tensor | None = None) -> Tensor:
    """How many steps in a row each request has had no draft verified, after one step more. In a loop::

        for r in range(N):
            if draft_lens is None or draft_lens[r] > 0:  # else it had none to verify, and its count stays
                waited[r] = 0 if lens[r] > 0 else waited[r] + 1

    Args:
        waited: [N] int32 or int64, the counts before the step; zeros at first, and 0 for a request that takes the row
            of another. Negative ones count as 0.
        lens: [N] int32 or int64, drafts that were verified of each: `Selection.lens`.
        draft_lens: [N] int32 or int64, drafts that each had. Default: some.

    Returns:
        [N] int32, at most 2^31 - 1, a fresh tensor; nothing is mutated.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape or device.
    """
    checks.check_tensor("waited", waited, checks.INTS, ("requests",))
    like = ("waited", waited)
    checks.check_like("lens", lens, checks.INTS, tuple(waited.shape), "one value per request", like)
    checks.check_per_request("draft_lens", draft_lens, checks.INTS, like)
    before = waited.clamp(0, MAX_WAITED)
    after = (before.clamp(max=MAX_WAITED - 1) + 1).masked_fill(lens > 0, 0)
    return (after if draft_lens is None else after.where(draft_lens > 0, before)).int()


def waiting_weights(waited: Tensor, *, nats_per_step: float) -> Tensor:
    """Weights that grow while a request waits, so that none goes without a verified draft for ever.

    With weights of nothing else, g = nats_per_step > 0, N requests of at most K drafts, and in each step a budget of
    C > 0 or more beside floors: a request that has drafts in every step, of which the first survives with probability
    s or more, goes unverified for at most ::

        floor((c + 2^-12) / g) + 1 + floor((N - 1) / ceil(C / K))

    steps in a row, c = min(-ln(s), 64) nats, as long as that times g is at most 500, where `select` caps weights. Why:
    once it has waited t > c / g steps, only requests that have waited t - c / g or more come before it. One that is
    verified from then on begins at 0, stays behind by more than that, and never comes before it again; and each step
    without it verifies drafts of at least ceil(C / K) of the N - 1 others. 2^-12 is for rounding. Other weights that
    are added to these count towards c, by as much as they differ.

    Args:
        waited: [N] int32 or int64, of `update_waited`; negative ones count as 0. They are of earlier steps, as all
            preferences must be, or sampled output is biased.
        nats_per_step: 0 or more: log(2) doubles the value of a request's drafts with each step that it waits.

    Returns:
        [N] float32, a fresh tensor, to be handed to `select` or added to other weights.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape, nats_per_step that are negative or not finite.
    """
    checks.check_tensor("waited", waited, checks.INTS, ("requests",))
    return waited.clamp(min=0).float() * _as_nats("nats_per_step", nats_per_step)


def _as_seconds(value: Any, like: tuple[str, Tensor]) -> float | Tensor:
    """A number above 0, or the tensor without its axes."""
    if isinstance(value, Tensor):
        if value.numel() != 1:
            raise ValueError(f"step_seconds: expected a tensor of one element, got shape {list(value.shape)}")
        checks.check_like("step_seconds", value, (torch.float32,), tuple(value.shape), "of one element", like)
        return value.reshape(()).double()
    seconds = _as_number("step_seconds", value)
    if not 0 < seconds < math.inf:
        raise ValueError(f"step_seconds: expected a finite number above 0, got {seconds}")
    return seconds


def _as_nats(name: str, value: Any) -> float:
    nats = _as_number(name, value)
    if not 0 <= nats < math.inf:
        raise ValueError(f"{name}: expected a finite number from 0 on, got {nats}")
    return nats


def _as_number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real | torch.SymFloat):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    return float(value)
