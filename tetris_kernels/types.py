"""What the stages return."""

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
