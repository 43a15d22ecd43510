"""The layout of a packed batch for attention: which slot of a padded [n, L] each token is, and back."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tetris_kernels import PackedBatch

IntArray = NDArray[np.int64]

# What attention takes, in slots of a request: a pass over its keys and values in a call for all requests, and one in
# a call for it alone (measured: 3 heads of 64, 80 to 350 keys, two AVX-512 cores). Elsewhere a call is a launch, which
# only a prompt is worth.
PASS = 8
ALONE = {"cpu": 16}
LAUNCH = 1000


class Part(NamedTuple):
    """One call of attention, L slots for each request.

    row:      the one request; None: all N.
    tokens:   [n, L] int64, the packed token in each slot, n being 1 or N. Where a request has none, some token of
              the batch: it is computed, and read by nobody.
    context:  the keys that the longest of these requests has, these tokens included.
    sees_all: whether every token may see all of them: one token each, all at one position.
    """

    row: int | None
    tokens: Tensor
    context: int
    sees_all: bool


class Ragged:
    """T packed tokens of N requests.

    packed:     the batch without its padding.
    request:    [T] int64, whose each token is.
    position:   [T] int64, where it stands in its request.
    last_token: [N] int64, the last token of each request; some other one if it is absent.
    parts:      a call of attention for the first tokens of all requests, and one for each request that has more; or
                those alone, where few requests are there or their numbers differ much.
    row, stride, slot: [T] int64, where each token is: the slots of all parts before the first of its request in its
                part, the slots of each request there, and its own among them.
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

        ends = counts.cumsum()
        request = np.repeat(np.arange(len(counts)), counts)
        index = np.arange(num_tokens) - (ends - counts)[request]
        cut = _cut(counts, ALONE.get(device.type, LAUNCH))
        pieces = [(row, cut, int(counts[row])) for row in np.flatnonzero(counts > cut).tolist()]
        row, stride, slot = np.zeros((3, num_tokens), np.int64)
        self.parts, base = [], 0
        for alone, low, high in [(None, 0, cut), *pieces] if cut else pieces:
            rows = np.arange(len(counts)) if alone is None else np.array([alone])
            within = np.arange(low, high)
            tokens = (ends - counts)[rows, None] + np.minimum(within, (counts[rows, None] - 1).clip(min=0))
            last = (starts[rows] + np.minimum(counts[rows], high))[counts[rows] > low]
            here = (index >= low) & (index < high) & ((alone is None) | (request == alone))
            row[here] = base + (request[here] * len(within) if alone is None else 0)
            stride[here], slot[here] = len(within), index[here] - low
            base += tokens.size
            self.parts.append(
                Part(
                    row=alone,
                    tokens=torch.from_numpy(tokens.clip(max=num_tokens - 1)).to(device),
                    context=int(last.max()),
                    sees_all=len(within) == 1 and bool((last == last[0]).all()),
                )
            )
        self.last_token = torch.from_numpy((ends - 1).clip(min=0)).to(device)
        self.row, self.stride, self.slot = (torch.from_numpy(part).to(device) for part in (row, stride, slot))


def _cut(counts: IntArray, alone: int) -> int:
    """How many tokens of each request the call for all takes: whatever is cheapest, the longest if nothing is."""

    def cost(cut: int) -> int:
        beyond = counts[counts > cut] - cut
        everyone = len(counts) * (cut + PASS) if cut else 0
        return everyone + int((beyond + alone).sum())

    cuts: list[int] = sorted({0, *counts.tolist()}, reverse=True)
    return min(cuts, key=cost)
