"""Argument checks: what was expected, what came. No check reads a device value."""

from __future__ import annotations

import math
import numbers
import operator
from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor

MAX_DRAFTS = 256  # 256 tokens x 64 nats x 65536 = 2^30: a row's key fits int32 with the weight on top

MAX_SIZE = 2**63 - 1  # of an operator's integer argument

MAX_ENDS = 64  # of budgets or sizes of verifications: what one warp of choose_budget has side by side

FLOATS = (torch.float32, torch.bfloat16, torch.float16)
INTS = (torch.int32, torch.int64)

KINDS = ("token", "top", "collision")  # of scores
BONUS = ("coupled", "direct")  # of accept


def check_tensor(name: str, value: Any, dtypes: tuple[torch.dtype, ...], axes: tuple[str, ...]) -> None:
    """`value`: a tensor of one of the dtypes and of these axes; an axis called drafts is at most MAX_DRAFTS long."""
    _check_dtype(name, value, dtypes)
    if value.dim() != len(axes):
        expected = f"{len(axes)} dimension{'s' * (len(axes) != 1)} [{', '.join(axes)}]"
        raise ValueError(f"{name}: expected {expected}, got shape {list(value.shape)}")
    if "drafts" in axes and value.shape[axes.index("drafts")] > MAX_DRAFTS:
        raise ValueError(f"{name}: expected at most {MAX_DRAFTS} drafts, got {value.shape[axes.index('drafts')]}")


def check_logprobs(draft_logprobs: Any) -> tuple[str, Tensor]:
    """Log-probs [N, K] of drafts, checked; and with their name, as others are compared with them."""
    check_tensor("draft_logprobs", draft_logprobs, FLOATS, ("requests", "drafts"))
    return "draft_logprobs", draft_logprobs


def check_like(
    name: str, value: Any, dtypes: tuple[torch.dtype, ...], shape: tuple[int, ...], what: str, like: tuple[str, Tensor]
) -> None:
    """`value`: a tensor of one of the dtypes and of this shape, on the device of another argument, `like`."""
    _check_dtype(name, value, dtypes)
    if value.dim() != len(shape) or any(got != size for got, size in zip(value.shape, shape, strict=True)):
        raise ValueError(f"{name}: expected shape {list(shape)}, {what}, got {list(value.shape)}")
    _check_device(name, value, like)


def check_per_request(name: str, values: Any, dtypes: tuple[torch.dtype, ...], like: tuple[str, Tensor]) -> None:
    """`values`: None, or one value per row of another argument, on its device."""
    if values is not None:
        check_like(name, values, dtypes, (like[1].shape[0],), "one value per request", like)


def check_preferences(
    draft_lens: Any, min_lens: Any, max_lens: Any, log_weights: Any, like: tuple[str, Tensor]
) -> tuple[Tensor | None, Tensor | None, Tensor | None, Tensor | None]:
    """What selection takes per request, checked and in this order."""
    check_per_request("draft_lens", draft_lens, INTS, like)
    check_per_request("min_lens", min_lens, INTS, like)
    check_per_request("max_lens", max_lens, INTS, like)
    check_per_request("log_weights", log_weights, (torch.float32,), like)
    return draft_lens, min_lens, max_lens, log_weights


def check_ends(name: str, value: Any, like: tuple[str, Tensor], least: int = 0) -> None:
    """`value`: an integer tensor of one dimension, with `least` to MAX_ENDS elements, on the device of another one."""
    check_tensor(name, value, INTS, (name,))
    if not least <= value.shape[0] <= MAX_ENDS:
        raise ValueError(f"{name}: expected {least} to {MAX_ENDS} elements, got {value.shape[0]}")
    _check_device(name, value, like)


def check_choice(name: str, value: Any, choices: Collection[str]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(map(repr, choices))}, got {value!r}")


def split_size(name: str, value: Any, like: tuple[str, Tensor]) -> tuple[Tensor | None, int]:
    """(on the device, on the host): an op's two arguments for one number of 0 or more, of which one is in use."""
    if isinstance(value, Tensor):
        _check_dtype(name, value, INTS)
        if value.numel() != 1:
            raise ValueError(f"{name}: expected a tensor of one element, got shape {list(value.shape)}")
        _check_device(name, value, like)
        return value, 0
    return None, as_size(name, value)


def split_temperature(temperature: Any, like: tuple[str, Tensor]) -> tuple[Tensor | None, float]:
    """(temperature of each request, of all requests): the op's two arguments, of which one is in use."""
    if isinstance(temperature, Tensor):
        check_per_request("temperature", temperature, (torch.float32,), like)
        return temperature, 1.0
    return None, _as_float("temperature", temperature, "a number or a tensor")


def as_factor(name: str, gain: Any) -> float:
    """1 + a gain of 0 or more, no more than float32 holds."""
    return min(1 + _as_float(name, gain, "a number"), torch.finfo(torch.float32).max)


def _as_float(name: str, value: Any, expected: str) -> float:
    if isinstance(value, bool) or not isinstance(value, numbers.Real | torch.SymFloat):
        raise TypeError(f"{name}: expected {expected}, got {type(value).__name__}")
    number = float(value)
    if not 0 <= number < math.inf:
        raise ValueError(f"{name}: expected a finite number from 0 on, got {number}")
    return number


def as_size(name: str, value: Any, limit: int | None = None) -> int:
    """`value` as an int of 0 or more, up to a limit; a torch.SymInt stays symbolic, since reading it would fix it."""
    size = _as_int(name, value)
    if isinstance(size, torch.SymInt):
        torch._check(size >= 0)  # a comparison would need a value, which an unbacked one does not have
        return size
    if size < 0:
        raise ValueError(f"{name}: expected 0 or more, got {size}")
    if limit is not None and size > limit:
        raise ValueError(f"{name}: expected at most {limit}, got {size}")
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


def _check_dtype(name: str, value: Any, dtypes: tuple[torch.dtype, ...]) -> None:
    if not isinstance(value, Tensor):
        raise TypeError(f"{name}: expected a torch.Tensor, got {type(value).__name__}")
    if value.dtype not in dtypes:
        expected = " or ".join(str(dtype) for dtype in dtypes)
        raise TypeError(f"{name}: expected dtype {expected}, got {value.dtype}")


def _check_device(name: str, value: Tensor, like: tuple[str, Tensor]) -> None:
    if value.device != like[1].device:
        raise ValueError(f"{name}: expected device {like[1].device} as {like[0]}, got {value.device}")
