"""select on one Triton program: buckets, variants and the launch."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from tetris_kernels.kernels import loading
from tetris_kernels.kernels.buckets import Shape, reached, smallest, too_large
from tetris_kernels.kernels.launching import as_words, is_packed, launch, num_words, on_device
from tetris_kernels.kernels.select_kernel import select_kernel
from tetris_kernels.kernels.variant import Variant

# Each padded shape that is compiled, the smallest first: at most 16384 drafts, which a program holds without spilling.
# About a row a thread, but up to 64 short rows in one warp, which needs no barrier; at most 16 warps, which both 32-
# and 64-lane warps allow.
BUCKETS = (
    (8, 4, 1),
    (32, 8, 1),
    (64, 8, 1),
    (64, 16, 2),
    (64, 32, 8),
    (256, 8, 8),
    (256, 16, 8),
    (1024, 8, 16),
    (4096, 4, 16),
    (2048, 8, 16),
    (1024, 16, 16),
    (512, 32, 16),
    (256, 64, 16),
    (128, 128, 16),
    (64, 256, 16),
)

_OPTIONAL = {
    "draft_lens_ptr": loading.DRAFT_LENS.value,
    "min_lens_ptr": loading.MIN_LENS.value,
    "max_lens_ptr": loading.MAX_LENS.value,
    "log_weights_ptr": loading.LOG_WEIGHTS.value,
}
_SIGNATURE = {
    "logprobs_ptr": "*fp32",
    "stride_n": "i64",
    "stride_k": "i64",
    "budget_ptr": "*i32",
    "host_budget": "i32",
    **dict.fromkeys(_OPTIONAL, "*i32"),
    "lens_ptr": "*i32",
    "cu_lens_ptr": "*i32",
    "num_requests": "i32",
    "num_drafts": "i32",
    "form": "i32",
}
_KINDS = {
    "plain": (dict.fromkeys(_OPTIONAL, "constexpr"), "float32, no optional tensors"),
    "full": ({}, "float32, any optional tensors"),
    "half": ({"logprobs_ptr": "*i16"}, "bfloat16 or float16, any optional tensors"),
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
        for kind in _KINDS:
            yield _variant(kind, shape)


@functools.cache
def _variant(kind: str, shape: Shape) -> Variant:
    changes, dtypes = _KINDS[kind]
    n_pad, k_pad, num_warps = shape
    absent = dict.fromkeys(_OPTIONAL) if kind == "plain" else {}
    return Variant(
        name=f"select-{kind}-{n_pad}x{k_pad}",
        kernel=select_kernel,
        signature=_SIGNATURE | changes,
        constexprs={**absent, "N_PAD": n_pad, "K_PAD": k_pad},
        num_warps=num_warps,
        when=f"{dtypes}; up to {n_pad} requests of up to {k_pad} drafts",
    )


def select(
    draft_logprobs: Tensor,
    budget: Tensor | None,
    host_budget: int,
    draft_lens: Tensor | None,
    min_lens: Tensor | None,
    max_lens: Tensor | None,
    log_weights: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`tetris_kernels.select` on checked arguments, returning (lens, cu_lens).

    One launch; an optional tensor that is not contiguous costs a copy.
    """
    shape = bucket(*draft_logprobs.shape)
    if shape is None:
        raise ValueError(too_large(BUCKETS, *draft_logprobs.shape))
    return _launch(shape, draft_logprobs, budget, host_budget, (draft_lens, min_lens, max_lens, log_weights))


def warmup(device: torch.device, dtypes: Collection[torch.dtype], max_requests: int, max_drafts: int) -> int:
    """Compile and load every variant that such batches can ask for, by launching it on an empty one."""
    shapes = reached(BUCKETS, max_requests, max_drafts)
    lens = torch.empty(0, dtype=torch.int32, device=device)
    # One pair of arguments for each kind: bfloat16 and float16 share theirs, with and without optional tensors.
    kinds = {_kind(dtype, optional): (dtype, optional) for dtype in dtypes for optional in (None, lens)}
    for shape, (dtype, optional) in itertools.product(shapes, kinds.values()):
        _launch(shape, torch.empty((0, 1), dtype=dtype, device=device), None, 0, (optional, None, None, None))
    return len(shapes) * len(kinds)


def _kind(dtype: torch.dtype, *optional: Tensor | None) -> str:
    if dtype != torch.float32:
        return "half"
    return "plain" if all(values is None for values in optional) else "full"


def _launch(
    shape: Shape,
    draft_logprobs: Tensor,
    budget: Tensor | None,
    host_budget: int,
    optional: tuple[Tensor | None, ...],
) -> tuple[Tensor, Tensor]:
    num_requests, num_drafts = draft_logprobs.shape
    lens = draft_logprobs.new_empty(num_requests, dtype=torch.int32)
    cu_lens = draft_logprobs.new_empty(num_requests + 1, dtype=torch.int32)

    form = loading.PACKED.value * is_packed(draft_logprobs) | num_words(budget) << loading.BUDGET.value
    kind, pointers = _kind(draft_logprobs.dtype, *optional), optional
    if kind != "plain":
        pointers = tuple(lens if values is None else as_words(values) for values in optional)
        for field, values in zip(_OPTIONAL.values(), optional, strict=True):
            form |= num_words(values) << field
    if kind == "half":
        form |= loading.BFLOAT16.value * (draft_logprobs.dtype == torch.bfloat16)
        draft_logprobs = draft_logprobs.view(torch.int16)

    with on_device(draft_logprobs.device):
        launch(
            _variant(kind, shape),
            1,
            draft_logprobs,
            draft_logprobs.stride(0),
            draft_logprobs.stride(1),
            lens if budget is None else as_words(budget),
            min(host_budget, num_requests * num_drafts) if budget is None else 0,
            *pointers,
            lens,
            cu_lens,
            num_requests,
            num_drafts,
            form,
        )
    return lens, cu_lens
