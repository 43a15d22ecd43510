"""pack in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def pack(
    lens: Tensor,
    draft_ids: Tensor,
    anchor_ids: Tensor,
    context_lens: Tensor,
    capacity: int,
    draft_lens: Tensor | None,
    pad_id: int,
) -> tuple[Tensor, ...]:
    """`tetris_kernels.pack` on checked arguments, returning the fields of a PackedBatch."""
    num_requests, num_drafts = draft_ids.shape
    available = torch.full_like(lens, num_drafts)
    if draft_lens is not None:
        available = draft_lens.clamp(0, num_drafts).to(torch.int32)
    sizes = torch.minimum(lens, available).clamp_(min=0).add_(1).masked_fill_(context_lens < 0, 0)
    cu_seqlens = pad(sizes.cumsum(0), (1, 0))
    overflow = cu_seqlens.select(0, -1) > capacity
    cu_seqlens = cu_seqlens.clamp_(max=capacity).to(torch.int32)
    packed_lens = cu_seqlens.diff().sub_(1).clamp_(min=0)

    slot = torch.arange(capacity, device=lens.device, dtype=torch.int32)
    if num_requests == 0:
        input_ids, position_ids = (torch.full_like(slot, value, dtype=torch.int64) for value in (pad_id, 0))
        return input_ids, position_ids, torch.full_like(slot, -1), cu_seqlens, packed_lens, available, overflow
    padding = slot >= cu_seqlens.select(0, -1)
    request = torch.searchsorted(cu_seqlens[1:], slot, right=True, out_int32=True).clamp_(max=num_requests - 1)
    offset = (slot - cu_seqlens.index_select(0, request)).clamp_(max=num_drafts)
    tokens = torch.cat([anchor_ids[:, None], draft_ids], 1)
    input_ids = tokens[request, offset].long().masked_fill_(padding, pad_id)
    position_ids = (context_lens.index_select(0, request).long() + offset).masked_fill_(padding, 0)
    return input_ids, position_ids, request.masked_fill_(padding, -1), cu_seqlens, packed_lens, available, overflow
