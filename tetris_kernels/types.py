"""What the stages return, and the preferences that `select` takes."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from tetris_kernels.checks import as_size


class Selection(NamedTuple):
    """How many drafts of each request are to be verified: always a prefix of the request's drafts.

    lens:    [N]     int32, drafts kept of each request.
    cu_lens: [N + 1] int32, exclusive prefix sum of `lens`, `cu_lens[N]` their total
             (what varlen attention calls cu_seqlens).

    Both are fresh tensors on the input's device. The methods run there too, without a host sync.
    """

    lens: Tensor
    cu_lens: Tensor

    @classmethod
    def from_lens(cls, lens: Tensor) -> Selection:
        """The selection of `lens` [N] int32, for policies of one's own; their sum must be below 2^31."""
        return cls(lens, torch.nn.functional.pad(lens.cumsum(0, dtype=torch.int32), (1, 0)))

    def mask(self, num_drafts: int) -> Tensor:
        """[N, num_drafts] bool: `mask[r, j] = j < lens[r]`."""
        position = torch.arange(as_size("num_drafts", num_drafts), device=self.lens.device, dtype=torch.int32)
        return position < self.lens.unsqueeze(1)

    def indices(self, capacity: int) -> tuple[Tensor, Tensor]:
        """The kept drafts as a flat list, request by request: `(request, position)`, each [capacity] int32.

        Slots from `cu_lens[N]` on hold -1. Drafts beyond `capacity` are left out: a capacity of at least
        the budget loses none.
        """
        slot = torch.arange(as_size("capacity", capacity), device=self.lens.device, dtype=torch.int32)
        request = torch.searchsorted(self.cu_lens, slot, right=True, out_int32=True) - 1
        position = slot - self.cu_lens.index_select(0, request)
        padding = slot >= self.cu_lens.select(0, -1)
        return request.masked_fill_(padding, -1), position.masked_fill_(padding, -1)


class Preferences(NamedTuple):
    """What `select` is to respect of each request, by the names of its arguments.

    min_lens:    [N] int32, drafts that come before all others.
    log_weights: [N] float32, priority in nats.
    """

    min_lens: Tensor
    log_weights: Tensor


class PackedBatch(NamedTuple):
    """The tokens of one verification, request by request: each one's anchor, then its selected drafts.

    input_ids:    [capacity] int64, the tokens; `pad_id` on padding.
    position_ids: [capacity] int64, their positions in their requests; 0 on padding.
    request_ids:  [capacity] int32, whose they are; -1 on padding.
    cu_seqlens:   [N + 1]    int32, request r has the slots from `cu_seqlens[r]` up to `cu_seqlens[r + 1]`; padding
                             begins at `cu_seqlens[N]`. Never above the capacity.
    lens:         [N]        int32, drafts of each request that are in it.
    draft_lens:   [N]        int32, drafts of each request that there were to select from.
    overflow:     []         bool, whether there were more tokens than `capacity`; the rest is left out.

    Fresh tensors on the inputs' device.
    """

    input_ids: Tensor
    position_ids: Tensor
    request_ids: Tensor
    cu_seqlens: Tensor
    lens: Tensor
    draft_lens: Tensor
    overflow: Tensor


class Accepted(NamedTuple):
    """What each request emits after a verification.

    tokens:  [N, K + 1] int64, the accepted drafts and then one token more; -1 behind them.
    counts:  [N] int32, how many tokens that is: accepted drafts + 1, or 0 for a request with no slot in the batch.
    coupled: [N] bool, whether the last of them is the request's first unselected draft, accepted by the coupled
             bonus. It is not one of the accepted drafts: nothing was spent on verifying it.

    Fresh tensors on the inputs' device.
    """

    tokens: Tensor
    counts: Tensor
    coupled: Tensor
