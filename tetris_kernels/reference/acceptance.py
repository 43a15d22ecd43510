"""accept in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad

from tetris_kernels.reference.temperature import centred


def accept(
    target_logits: Tensor,
    request_ids: Tensor,
    cu_seqlens: Tensor,
    lens: Tensor,
    draft_lens: Tensor,
    draft_ids: Tensor,
    uniforms: Tensor,
    draft_logits: Tensor | None,
    temperature: Tensor | None,
    host_temperature: float,
    coupled: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """`tetris_kernels.accept` on checked arguments, returning the fields of an Accepted."""
    capacity = target_logits.shape[0]
    num_requests, num_drafts = draft_ids.shape
    if capacity == 0 or num_requests == 0:
        counts = torch.zeros(num_requests, dtype=torch.int32, device=draft_ids.device)
        return torch.full_like(uniforms, -1, dtype=torch.int64), counts, counts.bool()
    draft_ids = draft_ids.long()
    position = torch.arange(num_drafts + 1, device=draft_ids.device)
    # Whatever the layout holds, slots stay within the capacity.
    bounds = cu_seqlens.clamp(0, capacity)
    num_slots = bounds.diff()
    present = num_slots > 0
    lens = torch.minimum(lens.clamp(0, num_drafts), num_slots - 1).clamp_(min=0)
    slots = (bounds[:-1, None] + position).clamp_(max=capacity - 1)
    # With the coupled bonus the first draft that was not selected is tested too.
    num_tested = torch.minimum(lens + int(coupled), draft_lens.clamp(0, num_drafts))

    of_slot = None if temperature is None else temperature.index_select(0, request_ids.clamp(0, num_requests - 1))
    if temperature is None and host_temperature <= 0:
        num_passed, token = _greedy(target_logits, slots, draft_ids, num_tested, lens)
    else:
        p = centred(target_logits, of_slot, host_temperature).softmax(-1)
        q = None if draft_logits is None else centred(draft_logits, None, 1.0).softmax(-1)
        num_passed, token = _sampled(p, q, slots, draft_ids, uniforms, num_tested, lens)
        if temperature is not None:
            greedy = _greedy(target_logits, slots, draft_ids, num_tested, lens)
            num_passed = torch.where(temperature > 0, num_passed, greedy[0])
            token = torch.where(temperature > 0, token, greedy[1])

    num_accepted = torch.minimum(num_passed, lens)
    is_coupled = (num_passed > lens) & present
    candidates = pad(draft_ids, (0, 1))
    last = num_accepted.long()[:, None]
    token = torch.where(is_coupled, candidates.gather(1, last)[:, 0], token)
    counts = (num_accepted + 1).masked_fill_(~present, 0)
    tokens = candidates.scatter_(1, last, token[:, None]).masked_fill_(position >= counts[:, None], -1)
    return tokens, counts, is_coupled


def _greedy(
    target_logits: Tensor, slots: Tensor, draft_ids: Tensor, num_tested: Tensor, lens: Tensor
) -> tuple[Tensor, Tensor]:
    """[N] tests passed in a row, and [N] the target's choice at the first slot that does not emit its draft."""
    # Not argmax, which takes more than twice as long for bfloat16 on a CPU.
    choices = target_logits.detach().max(-1).indices[slots]
    num_passed = _num_leading(draft_ids == choices[:, :-1], num_tested)
    last = torch.minimum(num_passed, lens).long()
    return num_passed, choices.gather(1, last[:, None])[:, 0]


def _sampled(
    p: Tensor, q: Tensor | None, slots: Tensor, draft_ids: Tensor, uniforms: Tensor, num_tested: Tensor, lens: Tensor
) -> tuple[Tensor, Tensor]:
    """[N] tests passed in a row, and [N] a draw at the first slot that does not emit its draft.

    p: [capacity, V], the target's probabilities. q: [N, K, V], those of the drafts; None: each has its draft alone.
    """
    num_requests, num_drafts = draft_ids.shape
    vocabulary = p.shape[1]
    known = (draft_ids >= 0) & (draft_ids < vocabulary)
    ids = draft_ids.clamp(0, vocabulary - 1)
    p_of_draft = p[slots[:, :-1], ids].masked_fill(~known, 0)
    q_of_draft = 1.0 if q is None else q.gather(2, ids[:, :, None])[:, :, 0].masked_fill(~known, 0)
    # What the target masks is never accepted, also by a uniform below 0.
    passes = (p_of_draft > 0) & (uniforms[:, :-1] * q_of_draft < p_of_draft)
    num_passed = _num_leading(passes, num_tested)

    last = torch.minimum(num_passed, lens).long()
    weights = p[slots.gather(1, last[:, None])[:, 0]]
    direct = _as_integers(weights)
    if num_drafts == 0:
        return num_passed, _inverse_cdf(direct, uniforms[:, -1])
    row, draft = torch.arange(num_requests, device=p.device), last.clamp(max=num_drafts - 1)
    if q is None:
        is_draft = torch.arange(vocabulary, device=p.device) == draft_ids[row, draft][:, None]
        residual = direct.masked_fill(is_draft, 0)
    else:
        residual = _as_integers(weights - q[row, draft])
    # Nothing is left where p and q are equal: then p itself.
    usable = (last < num_tested) & (residual.sum(1) > 0)
    return num_passed, _inverse_cdf(torch.where(usable[:, None], residual, direct), uniforms[:, -1])


def _num_leading(passes: Tensor, num_tested: Tensor) -> Tensor:
    """[N] int32: how many of the tests that are done passed before the first that did not."""
    position = torch.arange(passes.shape[1], device=passes.device)
    return (passes & (position < num_tested[:, None])).cumprod(1, dtype=torch.int32).sum(1, dtype=torch.int32)


def _as_integers(weights: Tensor) -> Tensor:
    """Probabilities as int64 in units of 2^-44, whose sums are exact, the same in any order; NaN and less than 0 as 0.

    A row's sum is about 2^44 at most. What is cut off is less than a float32 uniform can tell.
    """
    return weights.nan_to_num(nan=0.0).clamp_(0, 1).mul_(2.0**44).long()


def _inverse_cdf(weights: Tensor, uniforms: Tensor) -> Tensor:
    """[N]: the first token of each row at which the running sum of weights exceeds the uniform's part of the whole."""
    sums = weights.cumsum(1)
    total = sums[:, -1:].contiguous()
    part = (uniforms.nan_to_num(nan=0.0).clamp(0, 1)[:, None] * total.double()).long()
    # Not behind the last token of any weight, where a uniform of 1 would lead.
    token = torch.minimum(torch.searchsorted(sums, part, right=True), torch.searchsorted(sums, total))
    return token[:, 0].clamp_(max=weights.shape[1] - 1)
