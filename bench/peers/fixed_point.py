"""The contract's order keys for the exact peers: running sums of token costs in units of 2^-16 nats.

Written apart from the library's own, so that the peers agree with it by the contract and not by shared code.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

UNITS = 65536.0  # per nat
CAP = 64.0  # nats: the most that a token costs, and NaN does
NEVER = 2**31 - 1  # beyond the real drafts


def torch_keys(draft_logprobs: Tensor, draft_lens: Tensor | None) -> Tensor:
    """[N, K] int32; NEVER beyond the real drafts."""
    cost = draft_logprobs.neg().nan_to_num(nan=CAP).clamp(0.0, CAP)
    keys = (cost * UNITS).to(torch.int32).cumsum(1, dtype=torch.int32)
    if draft_lens is None:
        return keys
    position = torch.arange(keys.shape[1], device=keys.device)
    return keys.masked_fill(position >= draft_lens[:, None], NEVER)


def numpy_keys(draft_logprobs: np.ndarray, draft_lens: np.ndarray | None) -> np.ndarray:
    """[N, K] int32; NEVER beyond the real drafts."""
    cost = np.fmin(-draft_logprobs, np.float32(CAP))  # of NaN and CAP it takes CAP
    np.maximum(cost, np.float32(0), out=cost)
    cost *= np.float32(UNITS)
    keys = cost.astype(np.int32).cumsum(1, dtype=np.int32)
    if draft_lens is not None:
        keys[np.arange(keys.shape[1]) >= draft_lens[:, None]] = NEVER
    return keys
