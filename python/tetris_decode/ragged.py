"""The layout of a packed batch for attention: which slot of a padded [n, L] each token is, and back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tetris_kernels import PackedBatch

IntArray = NDArray[np.int64]

# What attention takes, in slots of a request: a pass over its keys and values, copying them out of the cache, and a
# call. Measured for 3 heads of 64 and 160 to 410 keys on two AVX-512 cores; no more than the order matters.
PASS = 3
COPY = 3
CALL = 16


class Part(NamedTuple):
    """One call of attention: n requests, L slots each.

    rows:     [n] int64, the requests; None: all of the batch in order.
    tokens:   [n, L] int64, the packed token in each slot. Where a request has none, some token of the batch: it is
              computed, and read by nobody.
    context:  the keys that the longest of these requests has, these tokens included.
    sees_all: whether every token may see all of them: one token each, all at one position.
    """

    rows: Tensor | None
    tokens: Tensor
    context: int
    sees_all: bool


class Ragged:
    """T packed tokens of N requests.

    packed:     the batch without its padding.
    request:    [T] int64, whose each token is.
    position:   [T] int64, where it stands in its request.
    last_token: [N] int64, the last token of each request; some other one if it is absent.
    parts:      one call of attention for all requests, or one for the first slots of all and one for what a few have
                beyond; or one for those that are there alone, if few are.
    row, stride, slot: [T] int64, where each token is: the slots of all parts before the first of its request in its
                part, the slots of each request there, and its own among them.
    is_padded:  whether the pack is the one part as it is: all requests in order with one number of tokens each.
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
        self.is_padded = bool((counts == counts[0]).all())

        ends = counts.cumsum()
        request = np.repeat(np.arange(len(counts)), counts)
        index = np.arange(num_tokens) - (ends - counts)[request]
        row, stride, slot = np.zeros((3, num_tokens), np.int64)
        self.parts, base = [], 0
        for rows, low, high in _split(counts):
            within = np.arange(low, high)
            tokens = (ends - counts)[rows, None] + np.minimum(within, (counts[rows, None] - 1).clip(min=0))
            last = (starts[rows] + np.minimum(counts[rows], high))[counts[rows] > low]
            here = np.isin(request, rows) & (index >= low) & (index < high)
            row[here] = base + np.searchsorted(rows, request[here]) * len(within)
            stride[here], slot[here] = len(within), index[here] - low
            base += tokens.size
            self.parts.append(
                Part(
                    rows=None if len(rows) == len(counts) else torch.from_numpy(rows).to(device),
                    tokens=torch.from_numpy(tokens.clip(max=num_tokens - 1)).to(device),
                    context=int(last.max()),
                    sees_all=len(within) == 1 and bool((last == last[0]).all()),
                )
            )
        self.last_token = torch.from_numpy((ends - 1).clip(min=0)).to(device)
        self.row, self.stride, self.slot = (torch.from_numpy(part).to(device) for part in (row, stride, slot))


def _split(counts: IntArray) -> list[tuple[IntArray, int, int]]:
    """Parts as (requests, first slot, end of slots): what is cheapest of one call, and of two at each place."""
    everyone, longest = np.arange(len(counts)), int(counts.max())
    best = [(everyone, 0, longest)]
    cheapest = len(counts) * (longest + PASS)
    for cut in sorted({0, *counts.tolist()} - {longest}):
        beyond = np.flatnonzero(counts > cut)
        cost = len(beyond) * (longest - cut + PASS + COPY) + (cut > 0) * (len(counts) * (cut + PASS) + CALL)
        if cost < cheapest:
            cheapest = cost
            best = [(everyone, 0, cut), (beyond, cut, longest)] if cut else [(beyond, 0, longest)]
    return best
