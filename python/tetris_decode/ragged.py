"""The layout of a packed batch for attention: which slot of a padded [N, L] each token is, and back."""

from __future__ import annotations

import torch
from torch import Tensor

from tetris_kernels import PackedBatch


class Ragged:
    """T packed tokens of N requests, at most L of any one.

    packed:         the batch without its padding.
    request:        [T]    int64, whose each token is.
    position:       [T]    int64, where it stands in its request.
    token_of_slot:  [N, L] int64, each request's j-th token in the pack; beyond its last, that one again.
    slot_of_token:  [T]    int64, the inverse, into N * L.
    context:        the length of the longest request, these tokens included.
    is_padded:      whether the pack is [N, L] as it is, since each request has L tokens.
    sees_all:       whether every token may see the whole context: one token each, all at one position.
    """

    def __init__(self, packed: PackedBatch) -> None:
        counts = packed.cu_seqlens.diff().long()
        first = packed.position_ids.masked_fill(packed.request_ids < 0, torch.iinfo(torch.int64).max).min()
        # The one wait for the device in a forward: how many tokens there are is the shape of all that follows.
        # An engine that captures graphs would run its whole capacity instead and never ask.
        sizes = torch.stack((packed.cu_seqlens[-1], counts.max(), packed.position_ids.max(), first)).tolist()
        num_tokens, num_slots, last, shallowest = (int(size) for size in sizes)
        self.context = last + 1
        self.sees_all = num_slots == 1 and shallowest == last

        self.packed = packed._replace(
            input_ids=packed.input_ids[:num_tokens],
            position_ids=packed.position_ids[:num_tokens],
            request_ids=packed.request_ids[:num_tokens],
        )
        self.request = self.packed.request_ids.long()
        self.position = self.packed.position_ids
        firsts = packed.cu_seqlens[:-1].long()
        slots = torch.arange(num_slots, device=counts.device)
        # An absent request borrows another's token: its slots are computed, and read by nobody.
        within = torch.minimum(slots, (counts - 1).clamp(min=0)[:, None])
        self.token_of_slot = (firsts[:, None] + within).clamp(max=num_tokens - 1)
        offset = torch.arange(num_tokens, device=counts.device) - firsts[self.request]
        self.slot_of_token = self.request * num_slots + offset
        self.is_padded = num_tokens == len(counts) * num_slots

    @property
    def last_token(self) -> Tensor:
        """[N] int64: the last token of each request in the pack; some other one if it is absent."""
        return self.token_of_slot[:, -1]

    def padded(self, packed: Tensor) -> Tensor:
        """[N, L, ...] of what is given as [T, ...]; slots beyond a request's last token repeat it."""
        slots = packed if self.is_padded else packed.index_select(0, self.token_of_slot.flatten())
        return slots.reshape(*self.token_of_slot.shape, *packed.shape[1:])
