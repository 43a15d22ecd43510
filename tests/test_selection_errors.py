"""What `select` and `warmup` refuse, by the text of the error."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from cases import Case, certain, copy

from tetris_kernels import backend, select, warmup

LOGPROBS = certain(3, 4)
INTS = torch.ones(3, dtype=torch.int32)
LENS = ["draft_lens", "min_lens", "max_lens"]

REFUSED_LOGPROBS = [
    (None, TypeError, "draft_logprobs: expected a torch.Tensor, got NoneType"),
    ([[-1.0]], TypeError, "draft_logprobs: expected a torch.Tensor, got list"),
    (np.zeros((3, 4)), TypeError, "draft_logprobs: expected a torch.Tensor, got ndarray"),
    (LOGPROBS.double(), TypeError, "torch.float32 or torch.bfloat16 or torch.float16, got torch.float64"),
    (LOGPROBS.long(), TypeError, "draft_logprobs: expected dtype torch.float32"),
    (LOGPROBS > 0, TypeError, "got torch.bool"),
    (torch.tensor(0.0), ValueError, "expected 2 dimensions [requests, drafts], got shape []"),
    (torch.zeros(4), ValueError, "draft_logprobs: expected 2 dimensions [requests, drafts], got shape [4]"),
    (torch.zeros(2, 3, 4), ValueError, "got shape [2, 3, 4]"),
    (torch.zeros(64, 257), ValueError, "draft_logprobs: expected at most 256 drafts, got 257"),
    (torch.zeros(0, 1000), ValueError, "draft_logprobs: expected at most 256 drafts, got 1000"),
]
REFUSED_LENS = [
    ([1, 2, 3], TypeError, "expected a torch.Tensor, got list"),
    (3, TypeError, "expected a torch.Tensor, got int"),
    (INTS.short(), TypeError, "expected dtype torch.int32 or torch.int64, got torch.int16"),
    (INTS.float(), TypeError, "expected dtype torch.int32 or torch.int64, got torch.float32"),
    (INTS > 0, TypeError, "got torch.bool"),
    (INTS[:2], ValueError, "expected shape [3], one value per request, got [2]"),
    (INTS[:, None], ValueError, "expected shape [3], one value per request, got [3, 1]"),
    (INTS[0], ValueError, "expected shape [3], one value per request, got []"),
    (INTS.to("meta"), ValueError, "expected device cpu as draft_logprobs, got meta"),
]
REFUSED_WEIGHTS = [
    ([1.0] * 3, TypeError, "log_weights: expected a torch.Tensor, got list"),
    (INTS, TypeError, "log_weights: expected dtype torch.float32, got torch.int32"),
    (INTS.double(), TypeError, "log_weights: expected dtype torch.float32, got torch.float64"),
    (INTS.half(), TypeError, "log_weights: expected dtype torch.float32, got torch.float16"),
    (torch.ones(4), ValueError, "log_weights: expected shape [3], one value per request, got [4]"),
    (torch.ones(3, device="meta"), ValueError, "log_weights: expected device cpu as draft_logprobs, got meta"),
]
REFUSED_BUDGETS = [
    (-1, ValueError, "budget: expected 0 or more, got -1"),
    (np.int64(-(2**40)), ValueError, f"budget: expected 0 or more, got {-(2**40)}"),
    (True, TypeError, "budget: expected an integer, got bool"),
    (np.True_, TypeError, "budget: expected an integer, got bool"),
    (3.0, TypeError, "budget: expected an integer, got float"),
    (np.float32(3), TypeError, "budget: expected an integer, got float32"),
    ("3", TypeError, "budget: expected an integer, got str"),
    (None, TypeError, "budget: expected an integer, got NoneType"),
    ([3], TypeError, "budget: expected an integer, got list"),
    (torch.tensor([3, 4]), ValueError, "budget: expected a tensor of one element, got shape [2]"),
    (INTS[:0], ValueError, "budget: expected a tensor of one element, got shape [0]"),
    (torch.tensor(3.0), TypeError, "budget: expected dtype torch.int32 or torch.int64, got torch.float32"),
    (torch.tensor(True), TypeError, "budget: expected dtype torch.int32 or torch.int64, got torch.bool"),
    (
        torch.tensor(3, dtype=torch.uint8),
        TypeError,
        "budget: expected dtype torch.int32 or torch.int64, got torch.uint8",
    ),
    (torch.tensor(3, device="meta"), ValueError, "budget: expected device cpu as draft_logprobs, got meta"),
]


def refused(error: type[Exception], text: str, call: Callable[[], object]) -> None:
    with pytest.raises(error, match=re.escape(text)) as caught:
        call()
    assert caught.type is error


@pytest.mark.parametrize(("value", "error", "text"), REFUSED_LOGPROBS, ids=lambda x: x if isinstance(x, str) else "")
def test_logprobs(value: Any, error: type[Exception], text: str) -> None:
    refused(error, text, lambda: select(value, 3))


@pytest.mark.parametrize("name", LENS)
@pytest.mark.parametrize(("value", "error", "text"), REFUSED_LENS, ids=lambda x: x if isinstance(x, str) else "")
def test_lens(name: str, value: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=rf"^{name}: .*{re.escape(text)}$"):
        select(LOGPROBS, 3, **{name: value})


@pytest.mark.parametrize(("value", "error", "text"), REFUSED_WEIGHTS, ids=lambda x: x if isinstance(x, str) else "")
def test_weights(value: Any, error: type[Exception], text: str) -> None:
    refused(error, text, lambda: select(LOGPROBS, 3, log_weights=value))


@pytest.mark.parametrize(("value", "error", "text"), REFUSED_BUDGETS, ids=lambda x: x if isinstance(x, str) else "")
def test_budgets(value: Any, error: type[Exception], text: str) -> None:
    refused(error, text, lambda: select(LOGPROBS, value))


@pytest.mark.parametrize("name", ["Triton", "", "cuda", None, 3])
def test_unknown_backends(name: Any) -> None:
    text = f"backend: expected one of 'auto', 'torch', 'triton', got {name!r}"
    refused(ValueError, text, lambda: select(LOGPROBS, 3, backend=name))


@pytest.mark.parametrize("value", [None, "0", "false"])
def test_triton_on_a_cpu_tensor(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if value is not None:
        monkeypatch.setenv("TRITON_INTERPRET", value)
    text = "expects a CUDA, ROCm or XPU tensor (a CPU tensor only under TRITON_INTERPRET=1), got one on cpu"
    refused(ValueError, text, lambda: select(LOGPROBS, 3, backend="triton"))
    refused(ValueError, "backend: 'triton' expects a CUDA", lambda: warmup("cpu"))


def test_triton_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_has_triton", lambda: False)
    text = "backend: 'triton' needs the package triton, which is not installed"
    refused(ValueError, text, lambda: select(LOGPROBS, 3, backend="triton"))
    refused(ValueError, text, lambda: warmup("cuda"))
    assert select(LOGPROBS, 3).cu_lens[-1] == 3


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"max_requests": -1}, ValueError, "max_requests: expected 0 or more, got -1"),
        ({"max_drafts": -5}, ValueError, "max_drafts: expected 0 or more, got -5"),
        ({"max_requests": 3.0}, TypeError, "max_requests: expected an integer, got float"),
        ({"max_drafts": True}, TypeError, "max_drafts: expected an integer, got bool"),
        ({"max_drafts": None}, TypeError, "max_drafts: expected an integer, got NoneType"),
        (
            {"dtypes": [torch.float64]},
            TypeError,
            "dtypes: expected some of torch.float32, torch.bfloat16, torch.float16",
        ),
        ({"dtypes": [torch.float32, "half"]}, TypeError, "torch.float16, got half"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_warmup(options: dict[str, Any], error: type[Exception], text: str) -> None:
    refused(error, text, lambda: warmup("cuda", **options))


def test_optional_arguments_have_names() -> None:
    with pytest.raises(TypeError, match="takes 2 positional arguments"):
        select(LOGPROBS, 3, INTS)  # type: ignore[misc]


@pytest.mark.parametrize(
    "wrong",
    [
        {"budget": -1},
        {"backend": "none"},
        {"log_weights": INTS},
        {"max_lens": INTS[:2]},
        {"budget": torch.tensor([3, 4])},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_nothing_is_changed_by_a_call_that_raises(wrong: dict[str, Any]) -> None:
    case = Case("", LOGPROBS, INTS, INTS, INTS * 2, torch.ones(3))
    arguments: dict[str, Any] = {"budget": torch.tensor(5), **case.on("cpu").rows}
    logprobs, budget = copy(LOGPROBS, "cpu"), arguments["budget"]
    with pytest.raises((TypeError, ValueError)):
        select(logprobs, **arguments | wrong)
    assert torch.equal(logprobs, LOGPROBS) and budget == 5
    assert all(torch.equal(arguments[name], given) for name, given in case.rows.items())
