"""score: draft logits as the acceptance estimates that select compares, and select_from_logits, both at once."""

from __future__ import annotations

from typing import SupportsIndex

import torch
from torch import Tensor

from tetris_kernels import checks, ops
from tetris_kernels.backend import check_backend
from tetris_kernels.types import Selection


def score(
    draft_logits: Tensor,
    draft_ids: Tensor,
    *,
    kind: str = "token",
    temperature: float | Tensor = 1.0,
    draft_lens: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """The log of an acceptance estimate for each draft, from the logits q = softmax(logits / temperature).

    ========= ==================== ==========================================================================
    kind      score                meaning
    ========= ==================== ==========================================================================
    token     log q(x)             the drawn token's own probability (TETRIS, arXiv 2502.15197, section 3).
                                   With drafts that were sampled, lossless only with the coupled bonus of
                                   `accept`, or a greedy target.
    top       log max q            the largest probability at that position: a function of the prefix only.
    collision log sum q^2          the probability that two draws from q agree: a function of the prefix only.
    ========= ==================== ==========================================================================

    Args:
        draft_logits: [N, K, V], K <= 256; float32, bfloat16 or float16; any strides, wide loads where V and the
            strides of rows are multiples of 16 bytes. -inf masks a token. The logits that each draft was drawn
            from or, for a greedy draft, taken from.
        draft_ids: [N, K] int32 or int64, the drafted tokens; any strides. One outside of 0..V-1 scores -inf.
        kind: "token", "top" or "collision".
        temperature: a number from 0 on, or [N] float32. 0 counts as 1: a greedy draft is judged by the
            distribution that its logits stand for, since its own says 1. So do negative and NaN tensor values.
        draft_lens: [N] int32 or int64, how many drafts of each row are real. The logits of the others are not
            read, and score -inf. Default: K. Clamped to 0..K.
        backend: "torch", "triton", or "auto": Triton on a GPU for V up to 262,144, else torch.

    Returns:
        [N, K] float32, at most 0 up to rounding, in a fresh tensor; nothing mutated. A row that holds NaN or
        +inf, or nothing but -inf, scores NaN, which `select` takes as never. Scores are within 2^-17 x (1 + |score|)
        of exact arithmetic, collisions within four times that, for temperatures of 2^-64 to 2^64 and differences of
        logits that float32 holds; so two backends are within twice that. With Triton, and with torch on the CPU, a
        row's score is the same in every batch, bit for bit; torch on a GPU adds up by the number of rows.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape or device, V = 0, an unknown kind or backend, a negative host temperature, a backend
            that cannot run here, and for "triton" a larger vocabulary.
    """
    like = _check_logits(draft_logits, draft_ids, kind)
    checks.check_per_request("draft_lens", draft_lens, checks.INTS, like)
    temperatures, host_temperature = checks.split_temperature(temperature, like)
    check_backend(backend, draft_logits.device)

    tensors = (draft_logits, draft_ids, temperatures, draft_lens)
    run = torch.ops.tetris_kernels.score if ops.is_traced(*tensors) else ops.score
    scores: Tensor = run(draft_logits, draft_ids, kind, temperatures, host_temperature, draft_lens, backend)
    return scores


def select_from_logits(
    draft_logits: Tensor,
    draft_ids: Tensor,
    budget: SupportsIndex | Tensor,
    *,
    kind: str = "token",
    temperature: float | Tensor = 1.0,
    draft_lens: Tensor | None = None,
    min_lens: Tensor | None = None,
    max_lens: Tensor | None = None,
    log_weights: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Selection, Tensor]:
    """`scores = score(draft_logits, ...)` and `select(scores, budget, ...)`, bit for bit, with fewer launches.

    The Triton backend needs two launches where the batch is small enough (see README, Limits), else three.

    Args:
        draft_logits, draft_ids, kind, temperature: as for `score`.
        budget, min_lens, max_lens, log_weights: as for `select`.
        draft_lens: as for both.
        backend: "torch", "triton", or "auto", each stage by its own rule.

    Returns:
        (Selection, scores [N, K] float32), all fresh tensors, nothing mutated.

    Raises:
        TypeError, ValueError: as `score` and `select`.
    """
    like = _check_logits(draft_logits, draft_ids, kind)
    preferences = checks.check_preferences(draft_lens, min_lens, max_lens, log_weights, like)
    device_budget, host_budget = checks.split_size("budget", budget, like)
    temperatures, host_temperature = checks.split_temperature(temperature, like)
    check_backend(backend, draft_logits.device)

    logits = (draft_logits, draft_ids, kind, temperatures, host_temperature)
    traced = ops.is_traced(draft_logits, draft_ids, temperatures, device_budget, *preferences)
    run = torch.ops.tetris_kernels.select_from_logits if traced else ops.select_from_logits
    lens, cu_lens, scores = run(*logits, device_budget, host_budget, *preferences, backend)
    return Selection(lens, cu_lens), scores


def _check_logits(draft_logits: Tensor, draft_ids: Tensor, kind: str) -> tuple[str, Tensor]:
    checks.check_tensor("draft_logits", draft_logits, checks.FLOATS, ("requests", "drafts", "vocabulary"))
    like = ("draft_logits", draft_logits)
    if draft_logits.shape[2] == 0:
        raise ValueError(f"draft_logits: expected a vocabulary, got shape {list(draft_logits.shape)}")
    checks.check_like("draft_ids", draft_ids, checks.INTS, draft_logits.shape[:2], "one id per draft", like)
    checks.check_choice("kind", kind, checks.KINDS)
    return like
