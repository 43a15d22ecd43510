"""choose_budget in plain torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tetris_kernels.reference.expectation import as_accepts, survivals_by_budget

MOST_TOKENS = 2**30  # numbers of tokens count as 0..MOST_TOKENS


def choose_budget(
    draft_logprobs: Tensor,
    tokens: Tensor,
    seconds: Tensor,
    requests: Tensor | None,
    host_requests: int,
    argmax: bool,
    factor: float,
    *preferences: Tensor | None,
) -> Tensor:
    """`tetris_kernels.choose_budget` on checked arguments; preferences: draft_lens to log_weights."""
    tokens = tokens.clamp(0, MOST_TOKENS).to(torch.int32)
    if requests is None:
        requests = torch.full_like(tokens, min(host_requests, MOST_TOKENS))
    room = tokens - requests.reshape(-1).clamp(0, MOST_TOKENS).to(torch.int32)
    sums = survivals_by_budget(draft_logprobs, *preferences)
    here, more = (sums.index_select(0, budget.clamp(0, draft_logprobs.numel())) for budget in (room, room + 1))
    reward = (tokens - room).float() + as_accepts(here)
    holds = room >= 0
    if argmax:
        chosen = _argmax(holds, seconds.detach(), reward, factor)
    else:
        chosen = _first_drop(holds, tokens, seconds.detach(), as_accepts(more - here), reward, factor)
    return (room * chosen * holds).sum(dtype=torch.int32)


def _first_drop(
    holds: Tensor, tokens: Tensor, seconds: Tensor, following: Tensor, reward: Tensor, factor: float
) -> Tensor:
    """[S] bool: the first end that holds the requests and behind which the next draft does not pay, or the last."""
    # Products alone, in this order, of which nothing can be fused. A NaN is not greater, and stops.
    gain = following[:-1] * tokens.diff().float() * seconds[:-1]
    price = seconds.diff() * factor * reward[:-1]
    goes_on = torch.nn.functional.pad(gain > price, (0, 1))
    return _first(_from_first(holds) & ~goes_on)


def _argmax(holds: Tensor, seconds: Tensor, reward: Tensor, factor: float) -> Tensor:
    """[S] bool: the end of the largest reward a second, the first of equal ones; the first that holds the requests
    unless it beats that by the factor."""
    rate = reward / seconds
    first = _first(holds)
    known = torch.where(holds, rate, -math.inf).nan_to_num(nan=-math.inf, posinf=math.inf, neginf=-math.inf)
    best = known.max()
    beaten = (first & (best > rate * factor)).any()
    return torch.where(beaten, _first(holds & (known == best)), first)


def _from_first(flags: Tensor) -> Tensor:
    """[S] bool: from the first flag on."""
    return flags.cumsum(0) > 0


def _first(flags: Tensor) -> Tensor:
    """[S] bool: the first flag alone."""
    return flags & (flags.cumsum(0) == 1)
