"""expected_accepts: how many drafts a verification may be expected to accept, by its budget."""

from __future__ import annotations

import torch
from torch import Tensor

from tetris_kernels import checks, ops
from tetris_kernels.backend import check_backend


def expected_accepts(
    draft_logprobs: Tensor,
    budgets: Tensor,
    *,
    draft_lens: Tensor | None = None,
    min_lens: Tensor | None = None,
    max_lens: Tensor | None = None,
    log_weights: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """How many drafts are accepted in the mean if `select` with each of these budgets is verified.

    A draft is accepted with all before it, by the estimates with the probability exp(sum of their log-probs), its
    survival. In a loop::

        for i, budget in enumerate(budgets):
            lens = select(draft_logprobs, max(budget, 0), ...).lens
            expected[i] = sum(exp(draft_logprobs[r, : j + 1].sum()) for r in range(N) for j in range(lens[r]))

    Floors and weights decide which drafts are selected; they change no survival. With the number of requests added, a
    token more for each, this is what a planner compares with the costs of verifications: all it needs, in one vector.

    Args:
        draft_logprobs: [N, K], as for `select`.
        budgets: [B] int32 or int64 on the same device, at most 64, in any order. One below 0 counts as 0; one beyond
            the usable drafts takes all.
        draft_lens, min_lens, max_lens, log_weights: as for `select`.
        backend: "torch", "triton", or "auto": Triton on a GPU for batches of up to one program (see README, Limits),
            one launch (and a conversion, if the log-probs have 16 bits), else torch.

    Returns:
        [B] float32, a fresh tensor, nothing mutated. A draft's cost is the sum that `select` compares, without floor
        and weight, in units of 2^-16 nats. Its survival is an integer in units of 2^-16: within 0.505 of exp(-cost),
        exactly 1 for a cost of 0, never more for a larger cost. The sum of these is exact, and rounded once. So the
        result is the same on every device and backend, bit for bit.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape or device, more than 64 budgets, an unknown backend or one that cannot run here, and
            for "triton" a batch beyond one program.
    """
    like = checks.check_logprobs(draft_logprobs)
    preferences = checks.check_preferences(draft_lens, min_lens, max_lens, log_weights, like)
    checks.check_ends("budgets", budgets, like)
    check_backend(backend, draft_logprobs.device)

    traced = ops.is_traced(draft_logprobs, budgets, *preferences)
    run = torch.ops.tetris_kernels.expected_accepts if traced else ops.expected_accepts
    expected: Tensor = run(draft_logprobs, budgets, *preferences, backend)
    return expected
