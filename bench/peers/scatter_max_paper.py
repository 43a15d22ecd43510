"""The paper's released form: a flat top-k of cumulative log-probs, then the deepest hit of each request.

The idea is that of the authors' code for TETRIS (arXiv 2502.15197), a fork of vLLM 0.4.2. Where survivals are equal,
`topk` may take a deep draft and leave a shallow one of the same request out; the deepest hit then keeps both, and the
batch holds more than the budget. That is how it is published and measured here; the gate counts the excess.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

NEVER = -float("inf")


def select(draft_logprobs: Tensor, budget: int | Tensor, draft_lens: Tensor | None) -> tuple[Tensor, Tensor]:
    """The budget is an int, and may be exceeded."""
    num_requests, num_drafts = draft_logprobs.shape
    survival = draft_logprobs.cumsum(1)
    if draft_lens is not None:
        position = torch.arange(num_drafts, device=survival.device)
        survival = survival.masked_fill(position >= draft_lens[:, None], NEVER)
    values, indices = survival.flatten().topk(min(int(budget), survival.numel()))
    depth = torch.where(values == NEVER, 0, indices % num_drafts + 1).to(torch.int32)
    lens = depth.new_zeros(num_requests).scatter_reduce_(0, indices // num_drafts, depth, "amax")
    return lens, pad(lens.cumsum(0, dtype=torch.int32), (1, 0))
