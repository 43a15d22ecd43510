"""score in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from tetris_kernels.reference.temperature import centred


def fuses(num_requests: int, num_drafts: int, vocabulary: int) -> bool:
    """Whether there is a select_from_logits that is more than score and select."""
    return False


def score(
    draft_logits: Tensor,
    draft_ids: Tensor,
    kind: str,
    temperature: Tensor | None,
    host_temperature: float,
    draft_lens: Tensor | None,
) -> Tensor:
    """`tetris_kernels.score` on checked arguments."""
    num_requests, num_drafts, vocabulary = draft_logits.shape
    if temperature is not None:
        temperature = temperature[:, None].expand(num_requests, num_drafts)
    logits = centred(draft_logits, temperature, host_temperature)
    scores = torch.zeros((num_requests, num_drafts), dtype=torch.float32, device=draft_logits.device)
    if kind == "token":
        known = (draft_ids >= 0) & (draft_ids < vocabulary)
        ids = draft_ids.clamp(0, vocabulary - 1).long()
        scores = logits.gather(2, ids.unsqueeze(2)).squeeze(2).masked_fill_(~known, -torch.inf)
    # Not log_softmax, which on a CPU adds terms one by one: over a large vocabulary that costs two digits.
    terms = logits.exp_()
    total = terms.sum(2).log_()
    if kind == "collision":
        scores = terms.square_().sum(2).log_().sub_(total)
    scores.sub_(total)
    if draft_lens is not None:
        position = torch.arange(num_drafts, device=scores.device)
        scores.masked_fill_(position >= draft_lens[:, None], -torch.inf)
    return scores
