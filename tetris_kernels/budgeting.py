"""choose_budget: how many drafts of a batch are worth verifying, on the device."""

from __future__ import annotations

from typing import SupportsIndex

import torch
from torch import Tensor

from tetris_kernels import checks, ops
from tetris_kernels.backend import check_backend

RULES = ("first drop", "argmax")


def choose_budget(
    draft_logprobs: Tensor,
    tokens: Tensor,
    seconds: Tensor,
    *,
    requests: SupportsIndex | Tensor | None = None,
    rule: str = "first drop",
    greedy: bool = False,
    min_gain: float = 0.0,
    draft_lens: Tensor | None = None,
    min_lens: Tensor | None = None,
    max_lens: Tensor | None = None,
    log_weights: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """The budget whose verification yields the most tokens a second, for `select` in the same CUDA graph.

    A verification takes one of the sizes `tokens`, a captured graph's buckets or points of a measured curve, and
    `seconds` is what it costs; the drafts are made already, so drafting costs nothing here. With n requests, the end
    tokens[i] has room for C = tokens[i] - n drafts, of which tau = `expected_accepts` are accepted: n + tau tokens in
    seconds[i]. Ends without room for n are skipped.

    "first drop" begins at the first end that holds n and goes on as long as the next draft pays::

        while i + 1 < S:
            following = the survival of the first draft that has no room in tokens[i]
            gain = following * (tokens[i + 1] - tokens[i]) * seconds[i]
            if not gain > (1 + min_gain) * (seconds[i + 1] - seconds[i]) * (n + tau[i]):
                break
            i += 1
        budget = tokens[i] - n

    So it stops at the first end behind which (n + tau) / seconds drops, along the straight line to the next end;
    padding up to an end is paid anyway. If the cost is convex, and without weights and floors, nothing beyond pays
    either, and with an end for every number of tokens it is the best of all budgets. The choice depends on drafts in
    the order in which they are selected, no deeper than on the first that is left out: it is a stopping rule, and
    sampled output stays the target's with the coupled bonus or scores of the prefix alone (README, What is lossless).

    "argmax" takes the end of the largest (n + tau) / seconds, of equal ones the first, if that is more than
    1 + min_gain times that of the first end. It gets over steps of the cost behind which tokens are cheap, but looks at
    drafts that it then leaves out: with drafts that were drawn, the output is no longer the target's. So it needs
    `greedy`.

    Args:
        draft_logprobs: [N, K], as for `select`.
        tokens: [S] int32 or int64 on the same device, 1 <= S <= 64, ascending: the sizes, requests counted.
        seconds: [S] float32 on the same device, above 0: what each costs, in any unit.
        requests: tokens that a verification has without drafts, one for each live request: an integer, or an int32 or
            int64 tensor of one element on the same device. Default: N.
        rule: "first drop" or "argmax".
        greedy: whether the target is decoded greedily, or no draft was drawn at random.
        min_gain: by how much what is added has to yield more tokens a second than what is there ("argmax": the whole
            than the first end), e.g. 0.02. It guards against changing to and fro for nothing.
        draft_lens, min_lens, max_lens, log_weights: as for `select`, which must be given the same.
        backend: "torch", "triton", or "auto": Triton on a GPU for batches of up to one program (see README, Limits),
            two launches (and a conversion, if the log-probs have 16 bits), else torch.

    Returns:
        0-d int32, a fresh tensor on the device, nothing mutated: tokens[i] - n of one of the ends, which may be more
        than there are drafts; 0 if no end holds n, and at an end that holds n alone. Numbers of tokens count as
        0..2^30. The comparison is in float32, from the exact sums of `expected_accepts`, by products alone ("argmax":
        by correctly rounded quotients), so that every device and backend chooses the same. Tokens that do not ascend or
        seconds that are not numbers are not seen; then it is still the budget of some end, or 0. "first drop" stops
        where it meets a NaN.

    Raises:
        TypeError: an argument of the wrong type or dtype.
        ValueError: a wrong shape or device, more than 64 ends or none, negative requests, an unknown rule, "argmax"
            without `greedy`, a min_gain that is negative or not finite, an unknown backend or one that cannot run here,
            and for "triton" a batch beyond one program.
    """
    like = checks.check_logprobs(draft_logprobs)
    preferences = checks.check_preferences(draft_lens, min_lens, max_lens, log_weights, like)
    checks.check_ends("tokens", tokens, like, least=1)
    checks.check_like("seconds", seconds, (torch.float32,), tokens.shape, "one value per end", like)
    live = draft_logprobs.shape[0] if requests is None else requests
    device_requests, host_requests = checks.split_size("requests", live, like)
    checks.check_choice("rule", rule, RULES)
    if rule == "argmax" and not greedy:
        raise ValueError(
            "rule: expected 'first drop' without greedy=True, got 'argmax': it looks at drafts that it leaves out, "
            "which biases sampled output"
        )
    factor = checks.as_factor("min_gain", min_gain)
    check_backend(backend, draft_logprobs.device)

    tensors = (draft_logprobs, tokens, seconds, device_requests)
    traced = ops.is_traced(*tensors, *preferences)
    run = torch.ops.tetris_kernels.choose_budget if traced else ops.choose_budget
    budget: Tensor = run(*tensors, host_requests, rule == "argmax", factor, *preferences, backend)
    return budget
