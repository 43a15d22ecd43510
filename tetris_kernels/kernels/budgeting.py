"""choose_budget in two launches: what to expect at each end of verification sizes, and the decision."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from tetris_kernels.kernels import budget_kernel as device_code
from tetris_kernels.kernels import expect_kernel, expectation, keys, loading
from tetris_kernels.kernels.budget_kernel import budget_kernel
from tetris_kernels.kernels.launching import as_words, launch, num_words, on_device
from tetris_kernels.kernels.variant import Variant

_VARIANT = Variant(
    name="choose-budget",
    kernel=budget_kernel,
    signature={
        "sums_ptr": "*i32",
        "tokens_ptr": "*i32",
        "seconds_ptr": "*fp32",
        "requests_ptr": "*i32",
        "host_requests": "i32",
        "factor": "fp32",
        "budget_ptr": "*i32",
        "num_ends": "i32",
        "form": "i32",
    },
    constexprs={},
    num_warps=1,
    when="choose_budget, behind expect",
)


def fits(num_requests: int, num_drafts: int) -> bool:
    """Whether one program can take a batch of this shape."""
    return expectation.fits(num_requests, num_drafts)


def variants() -> Iterator[Variant]:
    """The one compilation beside those of expected_accepts."""
    yield _VARIANT


def choose_budget(
    draft_logprobs: Tensor,
    tokens: Tensor,
    seconds: Tensor,
    requests: Tensor | None,
    host_requests: int,
    argmax: bool,
    factor: float,
    *preferences: Tensor | None,
) -> Tensor:
    """`tetris_kernels.choose_budget` on checked arguments; preferences: draft_lens to log_weights.

    Two launches; a copy for log-probs of 16 bits, and for each of the other tensors that is not contiguous.
    """
    sums = expectation.survivals_at(draft_logprobs, tokens, (requests, host_requests), preferences)
    return _decide(sums, tokens, seconds, (requests, host_requests), argmax, factor)


def warmup(device: torch.device, dtypes: Collection[torch.dtype], max_requests: int, max_drafts: int) -> int:
    """Compile and load the decision, by making one: it serves all batches."""
    nothing = torch.zeros(2, dtype=torch.int32, device=device)
    _decide(nothing, nothing[:1], torch.zeros(1, device=device), (None, 0), False, 1.0)
    return 1


def _decide(
    sums: Tensor, tokens: Tensor, seconds: Tensor, requests: tuple[Tensor | None, int], argmax: bool, factor: float
) -> Tensor:
    budget = tokens.new_empty((), dtype=torch.int32)
    num_requests, host_requests = requests
    form = num_words(tokens) << loading.BUDGET.value | num_words(num_requests) << expect_kernel.REQUESTS.value
    with on_device(tokens.device):
        launch(
            _VARIANT,
            1,
            sums,
            as_words(tokens),
            seconds.contiguous(),
            sums if num_requests is None else as_words(num_requests),
            min(host_requests, keys.MOST_TOKENS.value),
            factor,
            budget,
            tokens.shape[0],
            form | device_code.ARGMAX.value * argmax,
        )
    return budget
