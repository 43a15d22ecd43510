"""vLLM's form: survival as a product of probabilities, a flat top-k, a count per row.

The idea is that of its adaptive verification (vllm-project/vllm#47808 and what followed it): `cumprod` over the
positions, drafts that are not there masked, `topk` of a host integer over the flat batch, drafts counted per request
and summed up. It is compiled there; `select` is the same in eager mode. The order among equal survivals is that
of `topk`, which does not promise one.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from bench.peers.peer import Select


def select(draft_logprobs: Tensor, budget: int | Tensor, draft_lens: Tensor | None) -> tuple[Tensor, Tensor]:
    """The budget is an int."""
    num_requests, num_drafts = draft_logprobs.shape
    survival = draft_logprobs.exp().cumprod(1)
    if draft_lens is not None:
        position = torch.arange(num_drafts, device=survival.device)
        survival = survival.masked_fill(position >= draft_lens[:, None], -1.0)
    values, indices = survival.flatten().topk(min(int(budget), survival.numel()), sorted=False)
    kept = (values >= 0).to(torch.int32)
    lens = kept.new_zeros(num_requests).scatter_add_(0, indices // num_drafts, kept)
    return lens, pad(lens.cumsum(0, dtype=torch.int32), (1, 0))


def load_compiled() -> Select:
    """One compilation for all shapes and budgets."""
    return torch.compile(select, fullgraph=True, dynamic=True)
