"""Argument checks: what was expected, what came. No check reads a device value."""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

MAX_DRAFTS = 256  # 256 tokens x 64 nats x 65536 = 2^30: a row's key fits int32 with the weight on top

MAX_SIZE = 2**63 - 1  # of an operator's integer argument

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
INTS = (torch.int32, torch.int64)


def check_draft_logprobs(draft_logprobs: Any) -> None:
    _check_tensor("draft_logprobs", draft_logprobs, FLOATS)
    if draft_logprobs.dim() != 2:
        raise ValueError(
            f"draft_logprobs: expected 2 dimensions [requests, drafts], got shape {_shape(draft_logprobs)}"
        )
    if draft_logprobs.shape[1] > MAX_DRAFTS:
        raise ValueError(f"draft_logprobs: expected at most {MAX_DRAFTS} drafts, got {draft_logprobs.shape[1]}")


def check_per_request(name: str, values: Any, dtypes: tuple[torch.dtype, ...], draft_logprobs: Tensor) -> None:
    """`values`: None, or one value per row of `draft_logprobs`, on its device."""
    if values is None:
        return
    _check_tensor(name, values, dtypes)
    if values.dim() != 1 or values.shape[0] != draft_logprobs.shape[0]:
        raise ValueError(
            f"{name}: expected shape [{draft_logprobs.shape[0]}], one value per request, got {_shape(values)}"
        )
    _check_device(name, values, draft_logprobs)


def split_budget(budget: Any, draft_logprobs: Tensor) -> tuple[Tensor | None, int]:
    """(device budget, host budget): the op's two arguments, of which one is in use."""
    if isinstance(budget, Tensor):
        _check_tensor("budget", budget, INTS)
        if budget.numel() != 1:
            raise ValueError(f"budget: expected a tensor of one element, got shape {_shape(budget)}")
        _check_device("budget", budget, draft_logprobs)
        return budget, 0
    return None, as_size("budget", budget)


def as_size(name: str, value: Any) -> int:
    """`value` as an int of 0 or more; a torch.SymInt stays symbolic, since reading it would fix it."""
    size = _as_int(name, value)
    if isinstance(size, torch.SymInt):
        torch._check(size >= 0)  # a comparison would need a value, which an unbacked one does not have
        return size
    if size < 0:
        raise ValueError(f"{name}: expected 0 or more, got {size}")
    return min(size, MAX_SIZE)


def _as_int(name: str, value: Any) -> int:
    if type(value) is int or isinstance(value, torch.SymInt):
        return value  # type: ignore[return-value]  # not through operator.index, which fixes symbolic ones
    # A tensor has __index__ too: it reads the device.
    if isinstance(value, (bool, Tensor)):
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
    try:
        return operator.index(value)
    except TypeError:
        raise TypeError(f"{name}: expected an integer, got {type(value).__name__}") from None


def _check_tensor(name: str, value: Any, dtypes: tuple[torch.dtype, ...]) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.dtype not in dtypes:
        expected = " or ".join(str(dtype) for dtype in dtypes)
        raise TypeError(f"{name}: expected dtype {expected}, got {value.dtype}")


def _check_device(name: str, value: Tensor, draft_logprobs: Tensor) -> None:
    if value.device != draft_logprobs.device:
        raise ValueError(f"{name}: expected device {draft_logprobs.device} as draft_logprobs, got {value.device}")


def _shape(value: Tensor) -> list[int]:
    return list(value.shape)
