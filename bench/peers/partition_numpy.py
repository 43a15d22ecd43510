"""numpy's introselect finds the key at the cut; ties are handed out afterwards.

Selection by partial sorting, Hoare's "Find" (CACM 4(7), 1961), as `numpy.partition` has it.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from bench.peers.fixed_point import NEVER, numpy_keys


def select(draft_logprobs: Tensor, budget: int | Tensor, draft_lens: Tensor | None) -> tuple[Tensor, Tensor]:
    """O(N x K) on views of the tensors."""
    keys = numpy_keys(draft_logprobs.numpy(), None if draft_lens is None else draft_lens.numpy())
    lens = _lens(keys, min(int(budget), np.count_nonzero(keys != NEVER)))
    cu_lens = np.zeros(len(lens) + 1, dtype=np.int32)
    lens.cumsum(out=cu_lens[1:])
    return torch.from_numpy(lens), torch.from_numpy(cu_lens)


def _lens(keys: np.ndarray, size: int) -> np.ndarray:
    if size == 0:
        return np.zeros(len(keys), dtype=np.int32)
    cut = np.partition(keys, size - 1, axis=None)[size - 1]
    lens: np.ndarray = np.count_nonzero(keys <= cut, axis=1).astype(np.int32)
    excess = int(lens.sum()) - size
    if excess:
        # The last tied entries have to go: the deepest first, and at one position the last request first.
        tied = cut == keys.T
        _, request = np.nonzero(tied)
        np.subtract.at(lens, request[len(request) - excess :], 1)
    return lens
