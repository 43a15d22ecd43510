"""pack: the selected drafts of a batch as one ragged verification batch of a fixed size."""

from __future__ import annotations

from typing import SupportsIndex

import torch
from torch import Tensor

from tetris_kernels import checks, ops
from tetris_kernels.backend import check_backend
from tetris_kernels.types import PackedBatch, Selection

MAX_CAPACITY = 2**31 - 1  # cu_seqlens are int32


def pack(
    selection: Selection,
    draft_ids: Tensor,
    anchor_ids: Tensor,
    context_lens: Tensor,
    *,
    capacity: SupportsIndex,
    draft_lens: Tensor | None = None,
    pad_id: int = 0,
    backend: str = "auto",
) -> PackedBatch:
    """Lay out what the target verifies: of each request its anchor, then its selected drafts, then padding.

    In a loop::

        slots = []
        for r in range(N):
            if context_lens[r] >= 0:
                tokens = [anchor_ids[r], *draft_ids[r, : selection.lens[r]]]
                slots += [(token, context_lens[r] + j, r) for j, token in enumerate(tokens)]
        overflow = len(slots) > capacity
        slots = (slots + [(pad_id, 0, -1)] * capacity)[:capacity]

    Args:
        selection: of `select`; its `lens` [N] int32 are clamped to 0..draft_lens.
        draft_ids: [N, K] int32 or int64, K <= 256; any strides.
        anchor_ids: [N] of draft_ids' dtype, the last token of each request, which is not in its KV cache yet.
        context_lens: [N] int32 or int64, tokens in each request's KV cache: the position of its anchor. A request
            with a negative one sits out: it has no slot.
        capacity: how many slots there are, below 2^31, e.g. a captured graph's bucket. Requests + budget is always
            enough.
        draft_lens: [N] int32 or int64, how many drafts of each row are real: they are kept for `accept`, whose
            coupled bonus looks at the first draft that is not selected. Default: K. Clamped to 0..K.
        pad_id: the token on padding, 0 or more.
        backend: "torch", "triton", or "auto": Triton on a GPU, one launch, else torch.

    Returns:
        PackedBatch, all fresh tensors, nothing mutated. If the tokens are more than `capacity`, the first
        `capacity` of them are there and `overflow` is set: that cut is not by rank, and not lossless in general.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape or device, a capacity that is negative or too large, a negative pad_id, an unknown
            backend or one that cannot run here.
    """
    if not isinstance(selection, Selection):
        raise TypeError(f"selection: expected a Selection, got {type(selection).__name__}")
    checks.check_tensor("draft_ids", draft_ids, checks.INTS, ("requests", "drafts"))
    like = ("draft_ids", draft_ids)
    checks.check_like(
        "selection.lens", selection.lens, (torch.int32,), draft_ids.shape[:1], "one value per request", like
    )
    checks.check_like("anchor_ids", anchor_ids, (draft_ids.dtype,), draft_ids.shape[:1], "one value per request", like)
    checks.check_like("context_lens", context_lens, checks.INTS, draft_ids.shape[:1], "one value per request", like)
    checks.check_per_request("draft_lens", draft_lens, checks.INTS, like)
    num_slots = checks.as_size("capacity", capacity, MAX_CAPACITY)
    pad_id = checks.as_size("pad_id", pad_id, checks.MAX_SIZE)
    check_backend(backend, draft_ids.device)

    tensors = (selection.lens, draft_ids, anchor_ids, context_lens)
    run = torch.ops.tetris_kernels.pack if ops.is_traced(*tensors, draft_lens) else ops.pack
    return PackedBatch(*run(*tensors, num_slots, draft_lens, pad_id, backend))
