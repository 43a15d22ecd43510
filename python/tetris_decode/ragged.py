"""The layout of a ragged batch: which packed token belongs to which request, and back."""

from __future__ import annotations

import torch
from torch import Tensor


class Ragged:
    """T packed tokens of N requests, at most L of any one.

    Request r contributes `counts[r]` tokens at its positions `starts[r]` and on. The tokens of a request stand
    side by side, the requests in order; one with a count of 0 is absent.

    counts:         [N]    int64, as given.
    request:        [T]    int64, whose each token is.
    position:       [T]    int64, where it stands in its request.
    token_of_slot:  [N, L] int64, each request's j-th token in the pack; beyond its count, its last one again.
    slot_of_token:  [T]    int64, the inverse, into N * L.
    context:        the length of the longest request, these tokens included.
    is_padded:      whether the pack is [N, L] as it is, since each request has L tokens.
    sees_all:       whether every token may see the whole context: one token each, all requests of one length.
    """

    def __init__(self, starts: Tensor, counts: Tensor) -> None:
        ends = counts.cumsum(0)
        lens = starts + counts
        # The one wait for the device in a forward: how many tokens there are is the shape of all that follows.
        # An engine that captures graphs would pad to its budget instead and never ask.
        sizes = torch.stack((ends[-1], counts.max(), lens.max(), lens.min())).tolist()
        num_tokens, num_slots, self.context, shortest = (int(size) for size in sizes)
        self.sees_all = num_slots == 1 and shortest == self.context

        device = counts.device
        firsts = ends - counts
        slots = torch.arange(num_slots, device=device)
        self.counts = counts
        self.request = torch.repeat_interleave(torch.arange(len(counts), device=device), counts, output_size=num_tokens)
        offset = torch.arange(num_tokens, device=device) - firsts[self.request]
        self.position = starts[self.request] + offset
        # An absent request borrows another's token: its slots are computed, and read by nobody.
        within = torch.minimum(slots, (counts - 1).clamp(min=0)[:, None])
        self.token_of_slot = (firsts[:, None] + within).clamp(max=num_tokens - 1)
        self.slot_of_token = self.request * num_slots + offset
        self.is_padded = num_tokens == len(counts) * num_slots

    @property
    def last_token(self) -> Tensor:
        """[N] int64: the last token of each request in the pack; some other one if it is absent."""
        return self.token_of_slot[:, -1]

    def padded(self, packed: Tensor) -> Tensor:
        """[N, L, ...] of what is given as [T, ...]; slots beyond a request's count repeat its last token."""
        slots = packed if self.is_padded else packed.index_select(0, self.token_of_slot.flatten())
        return slots.reshape(*self.token_of_slot.shape, *packed.shape[1:])
