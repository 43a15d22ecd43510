"""A heap of frontiers in Python: Algorithm 1 of TETRIS (arXiv 2502.15197).

Also what AdaServe and the pull requests for DDTree do on the host between two steps.
"""

from __future__ import annotations

import heapq
from itertools import accumulate

import torch
from torch import Tensor

from bench.peers.fixed_point import token_cost


def select(draft_logprobs: Tensor, budget: int | Tensor, draft_lens: Tensor | None) -> tuple[Tensor, Tensor]:
    """Pop the best frontier, push its successor, `budget` times: O((N + budget) log N)."""
    rows = draft_logprobs.tolist()
    num_drafts = draft_logprobs.shape[1]
    ends = [num_drafts] * len(rows) if draft_lens is None else [min(end, num_drafts) for end in draft_lens.tolist()]
    lens = [0] * len(rows)
    # The key, then the position, then the request: the order of the contract.
    frontier = [(token_cost(row[0]), 0, r) for r, (row, end) in enumerate(zip(rows, ends, strict=True)) if end > 0]
    heapq.heapify(frontier)
    for _ in range(int(budget)):
        if not frontier:
            break
        key, position, r = frontier[0]
        position += 1
        lens[r] = position
        if position < ends[r]:
            heapq.heapreplace(frontier, (key + token_cost(rows[r][position]), position, r))
        else:
            heapq.heappop(frontier)
    cu_lens = list(accumulate(lens, initial=0))
    return torch.tensor(lens, dtype=torch.int32), torch.tensor(cu_lens, dtype=torch.int32)
