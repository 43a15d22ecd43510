"""The contract's order keys for the Triton peers."""

from __future__ import annotations

import triton
import triton.language as tl

NEVER = tl.constexpr(2**31 - 1)


@triton.jit
def load_keys(logprobs_ptr, draft_lens_ptr, position, request, num_requests, num_drafts):
    """[K_PAD, N] int32 of positions [K_PAD, 1] and requests [1, N]; NEVER beyond the real drafts.

    draft_lens_ptr may be None.
    """
    real = (position < num_drafts) & (request < num_requests)
    logprob = tl.load(logprobs_ptr + request * num_drafts + position, mask=real, other=0.0)
    cost = tl.where(logprob != logprob, 64.0, tl.minimum(tl.maximum(-logprob, 0.0), 64.0))
    keys = tl.cumsum((cost * 65536.0).to(tl.int32), 0)
    if draft_lens_ptr is not None:
        real &= position < tl.load(draft_lens_ptr + request, mask=request < num_requests, other=0)
    return tl.where(real, keys, NEVER)
