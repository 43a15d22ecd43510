"""TensorRT-LLM's form: two stable argsorts rank every draft, the budget is a number on the device.

The idea is that of its open pull requests on a verification budget for a batch: the first argsort orders the drafts,
the second inverts the permutation, so that a draft is kept where its rank is below the budget. Nothing is read by the
host, and no shape depends on the budget.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from bench.peers.fixed_point import NEVER, torch_keys


def select(draft_logprobs: Tensor, budget: int | Tensor, draft_lens: Tensor | None) -> tuple[Tensor, Tensor]:
    """Equal keys keep their order: position by position, and within a position request by request."""
    by_position = torch_keys(draft_logprobs, draft_lens).T
    order = by_position.flatten().argsort(stable=True)
    rank = order.argsort(stable=True).view(by_position.shape)
    kept = (rank < budget) & (by_position != NEVER)
    lens = kept.sum(0, dtype=torch.int32)
    return lens, pad(lens.cumsum(0, dtype=torch.int32), (1, 0))
