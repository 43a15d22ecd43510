"""expected_accepts in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from tetris_kernels.reference.selection import NEVER, order_keys, running_costs, usable_lens

LOG2_E = 3098164009  # in units of 2^-31
# 2^-x for 0 <= x < 1 as a - x (b - x (c - ...)), the polynomial of least error, in units of 2^-31; the innermost first.
POWER = (2036310, 19783838, 118758180, 515782661, 1488513833, 2147483533)


def expected_accepts(draft_logprobs: Tensor, budgets: Tensor, *preferences: Tensor | None) -> Tensor:
    """`tetris_kernels.expected_accepts` on checked arguments; preferences: draft_lens to log_weights."""
    sums = survivals_by_budget(draft_logprobs, *preferences)
    return as_accepts(sums.index_select(0, budgets.clamp(0, draft_logprobs.numel())))


def survivals_by_budget(draft_logprobs: Tensor, *preferences: Tensor | None) -> Tensor:
    """[N K + 1] int64 in units of 2^-16 accepts: what to expect of each budget from 0 to all drafts."""
    draft_lens, min_lens, max_lens, log_weights = preferences
    usable = usable_lens(draft_logprobs, draft_lens, max_lens)
    costs = running_costs(draft_logprobs)
    survivals = survival(costs)
    keys = order_keys(costs, usable, min_lens, log_weights)
    survivals.masked_fill_(keys == NEVER, 0)
    # Ties go position by position, and within a position request by request: the transpose's order.
    rank = keys.T.flatten().sort(stable=True).indices
    return pad(survivals.T.flatten().index_select(0, rank).cumsum(0), (1, 0))


def survival(costs: Tensor) -> Tensor:
    """int64 exp(-cost) in units of 2^-16, from int32 costs of 0 or more in units of 2^-16 nats, by integers alone.

    65536 for 0, within 0.505 of the exact value, and never more for a larger cost.
    """
    # Beyond 12 nats it is below half a unit. Bits are in units of 2^-26.
    bits = (costs.clamp(max=12 << 16).long() << 11) * LOG2_E >> 32
    fraction = (bits & (1 << 26) - 1) << 6
    power = torch.full_like(bits, POWER[0])
    for coefficient in POWER[1:]:
        power = coefficient - (fraction * power >> 32)
    # Shifted by 15 and the whole bits, rounded.
    return ((power >> (bits >> 26) + 14) + 1) >> 1


def as_accepts(sums: Tensor) -> Tensor:
    """float32 accepts from units of 2^-16, correctly rounded."""
    return sums.float() * 2.0**-16
