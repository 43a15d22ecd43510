"""accept: which drafts the target accepts, and the one token more that each request emits."""

from __future__ import annotations

import torch
from torch import Tensor

from tetris_kernels import checks, ops
from tetris_kernels.backend import check_backend
from tetris_kernels.types import Accepted, PackedBatch


def accept(
    target_logits: Tensor,
    packed: PackedBatch,
    draft_ids: Tensor,
    uniforms: Tensor,
    *,
    draft_logits: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    bonus: str = "coupled",
    backend: str = "auto",
) -> Accepted:
    """Speculative sampling (arXiv 2302.01318, Algorithm 2) on a ragged batch, with the bonus that keeps it lossless.

    With p_j = softmax(target logits of slot cu_seqlens[r] + j, / temperature) and q_j that of draft_logits[r, j]::

        j = 0
        while j < lens[r] and uniforms[r, j] * q_j(x_j) < p_j(x_j):
            emit x_j; j += 1
        test the draft at j, as above, if j < lens[r], or if bonus == "coupled" and j < draft_lens[r]
        if it was not tested: emit a draw from p_j              (the bonus token)
        elif it was accepted: emit x_j                          (coupled)
        else:                 emit a draw from max(p_j - q_j, 0), normalised

    The draw is by inverse CDF at uniforms[r, K], in token order. At temperature 0 the target is greedy: a draft
    is accepted if it is the argmax (the lowest of equals), which is emitted otherwise.

    A request whose selection was cut at draft j has looked at x_j: it was what made the cut. Drawing its bonus
    token straight from p_j is then biased if x_j was sampled and the score depends on it, as kind "token" of
    `score` does. The coupled bonus gives x_j its ordinary test, with the target distribution that is there
    anyway, and the joint law over all requests is the target's. Where drafts are greedy, the target is greedy,
    or the score depends on the prefix only, "direct" is lossless too.

    Args:
        target_logits: [capacity, V] float32, bfloat16 or float16; any strides, wide loads where V and the stride
            of rows are multiples of 16 bytes. -inf masks a token, as top-k and top-p do.
        packed: of `pack`.
        draft_ids: [N, K] int32 or int64, as given to `pack`. One outside of 0..V-1 is never accepted.
        uniforms: [N, K + 1] float32 in [0, 1), independent of each other and of everything that was drawn; others
            count as the nearest, NaN as 0. A float32 has 24 bits: tokens of a probability below 2^-24 are drawn too
            often or never.
        draft_logits: [N, K, V], of target_logits' dtype or another of the three: those of the distributions that
            the drafts were drawn from, after temperature and top-p, which are not applied here: logits / temperature
            where `score` was given logits and a temperature. A row of NaN or nothing but -inf rejects. None: the
            drafts are deterministic (greedy, n-grams), q_j(x_j) = 1.
        temperature: of the target, a number from 0 on, or [N] float32; 0 is greedy. So are negative and NaN tensor
            values.
        bonus: "coupled" or "direct", at drafts that were not selected.
        backend: "torch", "triton", or "auto": Triton on a GPU for V up to 262,144, else torch.

    Returns:
        Accepted, all fresh tensors, nothing mutated. If max(p - q, 0) is zero everywhere, the draw is from p. A row
        of target logits with NaN or +inf or nothing but -inf emits some token of 0..V-1.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape or device, V = 0, a negative host temperature, an unknown bonus or backend, a
            backend that cannot run here, and for "triton" a larger vocabulary.
    """
    checks.check_tensor("target_logits", target_logits, checks.FLOATS, ("capacity", "vocabulary"))
    checks.check_tensor("draft_ids", draft_ids, checks.INTS, ("requests", "drafts"))
    like = ("target_logits", target_logits)
    num_requests, num_drafts = draft_ids.shape
    capacity, vocabulary = target_logits.shape
    if vocabulary == 0:
        raise ValueError(f"target_logits: expected a vocabulary, got shape {list(target_logits.shape)}")
    _check_packed(packed, capacity, num_requests, like)
    checks.check_like("draft_ids", draft_ids, checks.INTS, draft_ids.shape, "", like)
    checks.check_like(
        "uniforms", uniforms, (torch.float32,), (num_requests, num_drafts + 1), "one more than drafts", like
    )
    if draft_logits is not None:
        shape = (num_requests, num_drafts, vocabulary)
        checks.check_like("draft_logits", draft_logits, checks.FLOATS, shape, "one row per draft", like)
    temperatures, host_temperature = checks.split_temperature(temperature, ("draft_ids", draft_ids))
    checks.check_choice("bonus", bonus, checks.BONUS)
    check_backend(backend, target_logits.device)

    layout = (packed.request_ids, packed.cu_seqlens, packed.lens, packed.draft_lens)
    tensors = (target_logits, *layout, draft_ids, uniforms, draft_logits, temperatures)
    run = torch.ops.tetris_kernels.accept if ops.is_traced(*tensors) else ops.accept
    return Accepted(*run(*tensors, host_temperature, bonus == "coupled", backend))


def _check_packed(packed: PackedBatch, capacity: int, num_requests: int, like: tuple[str, Tensor]) -> None:
    if not isinstance(packed, PackedBatch):
        raise TypeError(f"packed: expected a PackedBatch, got {type(packed).__name__}")
    for name, size, what in (
        ("request_ids", capacity, "one per row of target_logits"),
        ("cu_seqlens", num_requests + 1, "one more than requests"),
        ("lens", num_requests, "one value per request"),
        ("draft_lens", num_requests, "one value per request"),
    ):
        checks.check_like(f"packed.{name}", getattr(packed, name), (torch.int32,), (size,), what, like)
