"""The layout of a packed batch for attention: which slot of a padded [n, L] each token is, and back."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tetris_kernels import PackedBatch

IntArray = NDArray[np.int64]

# What attention takes, in slots of a request: a pass over its keys and values, and a call. Chosen by timing 3 heads of
# 64 with 80 to 350 keys on two AVX-512 cores. Elsewhere a call is a launch, which only a prompt is worth.
PASS = 8
CALL = {"cpu": 8}
LAUNCH = 1000


class Part(NamedTuple):
    """One call of attention: n neighbouring requests, L slots each.

    rows:     the requests.
    tokens:   [n, L] int64, the packed token in each slot. Where a request has none, some token of the batch: it is
              computed, and read by nobody.
    context:  the keys that the longest of these requests has, these tokens included.
    sees_all: whether every token may see all of them: one token each, all at one position.
    """

    rows: slice
    tokens: Tensor
    context: int
    sees_all: bool


class Ragged:
    """T packed tokens of N requests.

    packed:     the batch without its padding.
    request:    [T] int64, whose each token is.
    position:   [T] int64, where it stands in its request.
    last_token: [N] int64, the last token of each request; some other one if it is absent.
    parts:      calls of attention, each for neighbours with about as many tokens. Absent requests may be in none.
    base, stride, slot: [T] int64, where each token is: the slots of all parts before the first of its request, the
                slots that each request has in that part, and its own among them.
    """

    def __init__(self, packed: PackedBatch) -> None:
        device = packed.input_ids.device
        firsts = packed.cu_seqlens[:-1].long().clamp(max=packed.position_ids.shape[0] - 1)
        # The one wait for the device in a forward: how many tokens there are is the shape of all that follows.
        # An engine that captures graphs would run its whole capacity instead and never ask.
        sizes = torch.stack((packed.cu_seqlens.diff().long(), packed.position_ids[firsts])).cpu().numpy()
        counts, starts = sizes[0], sizes[1]
        num_tokens = int(counts.sum())
        self.packed = packed._replace(
            input_ids=packed.input_ids[:num_tokens],
            position_ids=packed.position_ids[:num_tokens],
            request_ids=packed.request_ids[:num_tokens],
        )
        self.request = self.packed.request_ids.long()
        self.position = self.packed.position_ids

        first = counts.cumsum() - counts
        base, stride = np.zeros((2, len(counts)), np.int64)
        self.parts, used = [], 0
        for rows, longest in _neighbours(counts, CALL.get(device.type, LAUNCH)):
            own = np.minimum(np.arange(longest), (counts[rows, None] - 1).clip(min=0))
            tokens = (first[rows, None] + own).clip(max=num_tokens - 1)
            base[rows], stride[rows] = used + longest * np.arange(len(tokens)), longest
            used += tokens.size
            contexts = (starts + counts)[rows][counts[rows] > 0]
            self.parts.append(
                Part(
                    rows=rows,
                    tokens=torch.from_numpy(tokens).to(device),
                    context=int(contexts.max()),
                    sees_all=longest == 1 and bool((contexts == contexts[0]).all()),
                )
            )
        request = np.repeat(np.arange(len(counts)), counts)
        slot = np.arange(num_tokens) - first[request]
        self.base, self.stride, self.slot, self.last_token = (
            torch.from_numpy(numbers).to(device)
            for numbers in (base[request], stride[request], slot, (first + counts - 1).clip(min=0))
        )


def _neighbours(counts: IntArray, call: int) -> Iterator[tuple[slice, int]]:
    """The cheapest cut of the requests into parts: rows and the most tokens of one; those without tokens left out."""
    cheapest, begin = np.zeros(len(counts) + 1, np.int64), np.zeros(len(counts) + 1, np.int64)
    for end in range(1, len(counts) + 1):
        # Of a part that begins at each row and ends here.
        longest = np.maximum.accumulate(counts[:end][::-1])[::-1]
        cost = np.where(longest > 0, (end - np.arange(end)) * (longest + PASS) + call, 0) + cheapest[:end]
        begin[end] = cost.argmin()
        cheapest[end] = cost[begin[end]]
    stop = len(counts)
    while stop > 0:
        rows = slice(int(begin[stop]), stop)
        if most := int(counts[rows].max()):
            yield rows, most
        stop = rows.start
