"""expected_accepts in one launch of a program for each budget: buckets, variants and the launch."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from tetris_kernels.kernels import expect_kernel as device_code
from tetris_kernels.kernels import keys, loading
from tetris_kernels.kernels.buckets import Shape, reached, smallest, too_large
from tetris_kernels.kernels.expect_kernel import expect_kernel
from tetris_kernels.kernels.launching import as_words, is_packed, launch, num_words, on_device
from tetris_kernels.kernels.variant import Variant

# As select's, but fewer: each is another compilation.
BUCKETS = (
    (64, 8, 1),
    (64, 32, 8),
    (256, 8, 8),
    (256, 16, 8),
    (2048, 8, 16),
    (1024, 16, 16),
    (512, 32, 16),
    (256, 64, 16),
    (128, 128, 16),
    (64, 256, 16),
)

_OPTIONAL = (loading.DRAFT_LENS, loading.MIN_LENS, loading.MAX_LENS, loading.LOG_WEIGHTS)
_SIGNATURE = {
    "logprobs_ptr": "*fp32",
    "stride_n": "i64",
    "stride_k": "i64",
    "budgets_ptr": "*i32",
    "requests_ptr": "*i32",
    "host_requests": "i32",
    **dict.fromkeys(("draft_lens_ptr", "min_lens_ptr", "max_lens_ptr", "log_weights_ptr", "sums_ptr"), "*i32"),
    **dict.fromkeys(("num_requests", "num_drafts", "num_budgets", "form"), "i32"),
}


@functools.lru_cache(maxsize=4096)
def bucket(num_requests: int, num_drafts: int) -> Shape | None:
    """The first bucket that holds the batch, or None."""
    return smallest(BUCKETS, num_requests, num_drafts)


def fits(num_requests: int, num_drafts: int) -> bool:
    """Whether one program can take a batch of this shape."""
    return bucket(num_requests, num_drafts) is not None


def variants() -> Iterator[Variant]:
    """Every compilation of the kernel that a call can ask for."""
    for shape in BUCKETS:
        yield _variant(shape)


@functools.cache
def _variant(shape: Shape) -> Variant:
    n_pad, k_pad, num_warps = shape
    return Variant(
        name=f"expect-{n_pad}x{k_pad}",
        kernel=expect_kernel,
        signature=_SIGNATURE,
        constexprs={"N_PAD": n_pad, "K_PAD": k_pad},
        num_warps=num_warps,
        when=f"expected_accepts and choose_budget; up to {n_pad} requests of up to {k_pad} drafts",
    )


def expected_accepts(draft_logprobs: Tensor, budgets: Tensor, *preferences: Tensor | None) -> Tensor:
    """`tetris_kernels.expected_accepts` on checked arguments; preferences: draft_lens to log_weights.

    One launch; a copy for log-probs of 16 bits, and for each of the other tensors that is not contiguous.
    """
    accepts = draft_logprobs.new_empty(budgets.shape, dtype=torch.float32)
    _launch(_shape(draft_logprobs), draft_logprobs, budgets, (None, 0), preferences, accepts.view(torch.int32), 0)
    return accepts


def survivals_at(
    draft_logprobs: Tensor, tokens: Tensor, requests: tuple[Tensor | None, int], preferences: tuple[Tensor | None, ...]
) -> Tensor:
    """[2 S] int32 in units of 2^-16 accepts: of `tokens` [S] less requests drafts, then of one draft more.

    requests: the tensor, or None and a number.
    """
    sums = tokens.new_empty(2 * tokens.shape[0], dtype=torch.int32)
    _launch(_shape(draft_logprobs), draft_logprobs, tokens, requests, preferences, sums, device_code.COUNTS.value)
    return sums


def warmup(device: torch.device, dtypes: Collection[torch.dtype], max_requests: int, max_drafts: int) -> int:
    """Compile and load every variant that such batches can ask for, by launching it on an empty one."""
    shapes = reached(BUCKETS, max_requests, max_drafts)
    logprobs = torch.empty((0, 1), dtype=torch.float32, device=device)
    budgets = torch.zeros(1, dtype=torch.int32, device=device)
    for shape in shapes:
        _launch(shape, logprobs, budgets, (None, 0), (None,) * 4, torch.empty_like(budgets), 0)
    return len(shapes)


def _shape(draft_logprobs: Tensor) -> Shape:
    shape = bucket(*draft_logprobs.shape)
    if shape is None:
        raise ValueError(too_large(BUCKETS, *draft_logprobs.shape))
    return shape


def _launch(
    shape: Shape,
    draft_logprobs: Tensor,
    budgets: Tensor,
    requests: tuple[Tensor | None, int],
    preferences: tuple[Tensor | None, ...],
    sums: Tensor,
    form: int,
) -> None:
    """A program for each of `sums`: more than there are budgets are those with one draft more."""
    if sums.numel() == 0:
        return
    logprobs = draft_logprobs.float()
    num_requests, host_requests = requests
    form |= loading.PACKED.value * is_packed(logprobs) | num_words(budgets) << loading.BUDGET.value
    form |= num_words(num_requests) << device_code.REQUESTS.value
    for field, values in zip(_OPTIONAL, preferences, strict=True):
        form |= num_words(values) << field.value
    with on_device(logprobs.device):
        launch(
            _variant(shape),
            sums.numel(),
            logprobs,
            logprobs.stride(0),
            logprobs.stride(1),
            as_words(budgets),
            sums if num_requests is None else as_words(num_requests),
            min(host_requests, keys.MOST_TOKENS.value),
            *(sums if values is None else as_words(values) for values in preferences),
            sums,
            *logprobs.shape,
            budgets.shape[0],
            form,
        )
