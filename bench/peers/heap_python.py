"""A heap of frontiers in Python: Algorithm 1 of TETRIS (arXiv 2502.15197).

Also what AdaServe and the pull requests for DDTree do on the host between two steps.
"""

from __future__ import annotations

import heapq

import numpy as np
import torch
from torch import Tensor

from bench.peers.fixed_point import NEVER, numpy_keys

# Key, position, request in one number whose order is the contract's: 31, 8 and 24 bits.
POSITION, KEY = 24, 32


def select(draft_logprobs: Tensor, budget: int | Tensor, draft_lens: Tensor | None) -> tuple[Tensor, Tensor]:
    """Pop the best frontier, push its successor, `budget` times: O((N + budget) log N), on keys made by numpy."""
    keys = numpy_keys(draft_logprobs.numpy(), None if draft_lens is None else draft_lens.numpy())
    num_requests, num_drafts = keys.shape
    order = np.arange(num_drafts) << POSITION | np.arange(num_requests)[:, None]
    rows = (keys.astype(np.int64) << KEY | order).tolist()
    end = NEVER << KEY  # from here on, drafts are not real
    lens = [0] * num_requests
    frontier = [row[0] for row in rows if row[0] < end]
    heapq.heapify(frontier)
    for _ in range(int(budget)):
        if not frontier:
            break
        request = frontier[0] & ((1 << POSITION) - 1)
        lens[request] = kept = lens[request] + 1
        if kept < num_drafts and rows[request][kept] < end:
            heapq.heapreplace(frontier, rows[request][kept])
        else:
            heapq.heappop(frontier)
    cu_lens = np.zeros(num_requests + 1, np.int32)
    np.cumsum(lens, out=cu_lens[1:])
    return torch.tensor(lens, dtype=torch.int32), torch.from_numpy(cu_lens)
