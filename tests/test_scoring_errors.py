"""What `score` and `select_from_logits` refuse, by the text of the error."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from scoring_cases import drawn, normal
from test_selection_errors import REFUSED_BUDGETS, refused

from tetris_kernels import backend, score, select_from_logits

LOGITS = normal(3, 4, 5)
IDS = drawn(3, 4, 5)
INTS = torch.ones(3, dtype=torch.int32)


def _select(logits: Any, ids: Any, **options: Any) -> object:
    return select_from_logits(logits, ids, options.pop("budget", 3), **options)


CALLS: dict[str, Callable[..., object]] = {"score": score, "select_from_logits": _select}

REFUSED_LOGITS = [
    (None, TypeError, "draft_logits: expected a torch.Tensor, got NoneType"),
    ([[[1.0]]], TypeError, "draft_logits: expected a torch.Tensor, got list"),
    (np.zeros((3, 4, 5)), TypeError, "draft_logits: expected a torch.Tensor, got ndarray"),
    (LOGITS.double(), TypeError, "torch.float32 or torch.bfloat16 or torch.float16, got torch.float64"),
    (LOGITS.long(), TypeError, "draft_logits: expected dtype torch.float32"),
    (LOGITS[0], ValueError, "expected 3 dimensions [requests, drafts, vocabulary], got shape [4, 5]"),
    (LOGITS[None], ValueError, "expected 3 dimensions [requests, drafts, vocabulary], got shape [1, 3, 4, 5]"),
    (torch.zeros(1, 257, 2), ValueError, "draft_logits: expected at most 256 drafts, got 257"),
    (torch.zeros(3, 4, 0), ValueError, "draft_logits: expected a vocabulary, got shape [3, 4, 0]"),
    (torch.zeros(0, 4, 0), ValueError, "draft_logits: expected a vocabulary, got shape [0, 4, 0]"),
]
REFUSED_IDS = [
    (None, TypeError, "draft_ids: expected a torch.Tensor, got NoneType"),
    (IDS.tolist(), TypeError, "draft_ids: expected a torch.Tensor, got list"),
    (IDS.float(), TypeError, "draft_ids: expected dtype torch.int32 or torch.int64, got torch.float32"),
    (IDS.short(), TypeError, "draft_ids: expected dtype torch.int32 or torch.int64, got torch.int16"),
    (IDS[:2], ValueError, "draft_ids: expected shape [3, 4], one id per draft, got [2, 4]"),
    (IDS.T, ValueError, "draft_ids: expected shape [3, 4], one id per draft, got [4, 3]"),
    (IDS[0], ValueError, "draft_ids: expected shape [3, 4], one id per draft, got [4]"),
    (IDS.to("meta"), ValueError, "draft_ids: expected device cpu as draft_logits, got meta"),
]
REFUSED_OPTIONS = [
    ("kind", "Token", ValueError, "kind: expected one of 'token', 'top', 'collision', got 'Token'"),
    ("kind", None, ValueError, "kind: expected one of 'token', 'top', 'collision', got None"),
    ("temperature", -0.5, ValueError, "temperature: expected a finite number from 0 on, got -0.5"),
    ("temperature", float("nan"), ValueError, "temperature: expected a finite number from 0 on, got nan"),
    ("temperature", float("inf"), ValueError, "temperature: expected a finite number from 0 on, got inf"),
    ("temperature", True, TypeError, "temperature: expected a number or a tensor, got bool"),
    ("temperature", "1", TypeError, "temperature: expected a number or a tensor, got str"),
    ("temperature", None, TypeError, "temperature: expected a number or a tensor, got NoneType"),
    ("temperature", [1.0] * 3, TypeError, "temperature: expected a number or a tensor, got list"),
    ("temperature", torch.ones(4), ValueError, "temperature: expected shape [3], one value per request, got [4]"),
    ("temperature", torch.tensor(1.0), ValueError, "temperature: expected shape [3], one value per request, got []"),
    ("temperature", INTS, TypeError, "temperature: expected dtype torch.float32, got torch.int32"),
    ("temperature", torch.ones(3, device="meta"), ValueError, "temperature: expected device cpu as draft_logits"),
    ("draft_lens", [1, 2, 3], TypeError, "draft_lens: expected a torch.Tensor, got list"),
    ("draft_lens", INTS.float(), TypeError, "draft_lens: expected dtype torch.int32 or torch.int64"),
    ("draft_lens", INTS[:2], ValueError, "draft_lens: expected shape [3], one value per request, got [2]"),
    ("draft_lens", INTS.to("meta"), ValueError, "draft_lens: expected device cpu as draft_logits, got meta"),
    ("backend", "Triton", ValueError, "backend: expected one of 'auto', 'torch', 'triton', got 'Triton'"),
    ("backend", None, ValueError, "backend: expected one of 'auto', 'torch', 'triton', got None"),
]
REFUSED_PREFERENCES = [
    ("min_lens", INTS[:2], ValueError, "min_lens: expected shape [3], one value per request, got [2]"),
    ("min_lens", 3, TypeError, "min_lens: expected a torch.Tensor, got int"),
    ("max_lens", INTS.bool(), TypeError, "max_lens: expected dtype torch.int32 or torch.int64, got torch.bool"),
    ("max_lens", INTS.to("meta"), ValueError, "max_lens: expected device cpu as draft_logits, got meta"),
    ("log_weights", INTS, TypeError, "log_weights: expected dtype torch.float32, got torch.int32"),
    ("log_weights", torch.ones(4), ValueError, "log_weights: expected shape [3], one value per request, got [4]"),
]


def name_of(value: Any) -> str:
    return value if isinstance(value, str) else ""


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("value", "error", "text"), REFUSED_LOGITS, ids=name_of)
def test_logits(call: str, value: Any, error: type[Exception], text: str) -> None:
    refused(error, text, lambda: CALLS[call](value, IDS))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("value", "error", "text"), REFUSED_IDS, ids=name_of)
def test_ids(call: str, value: Any, error: type[Exception], text: str) -> None:
    refused(error, text, lambda: CALLS[call](LOGITS, value))


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize(("name", "value", "error", "text"), REFUSED_OPTIONS, ids=name_of)
def test_options(call: str, name: str, value: Any, error: type[Exception], text: str) -> None:
    refused(error, text, lambda: CALLS[call](LOGITS, IDS, **{name: value}))


@pytest.mark.parametrize(("name", "value", "error", "text"), REFUSED_PREFERENCES, ids=name_of)
def test_preferences(name: str, value: Any, error: type[Exception], text: str) -> None:
    refused(error, text, lambda: select_from_logits(LOGITS, IDS, 3, **{name: value}))


@pytest.mark.parametrize(("value", "error", "text"), REFUSED_BUDGETS, ids=name_of)
def test_budgets(value: Any, error: type[Exception], text: str) -> None:
    text = text.replace("draft_logprobs", "draft_logits")
    refused(error, text, lambda: select_from_logits(LOGITS, IDS, value))


@pytest.mark.parametrize("call", CALLS)
def test_triton_that_cannot_run(call: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    refused(ValueError, "backend: 'triton' expects a CUDA", lambda: CALLS[call](LOGITS, IDS, backend="triton"))
    monkeypatch.setattr(backend, "_has_triton", lambda: False)
    text = "backend: 'triton' needs the package triton, which is not installed"
    refused(ValueError, text, lambda: CALLS[call](LOGITS, IDS, backend="triton"))


@pytest.mark.parametrize("call", CALLS)
def test_optional_arguments_have_names(call: str) -> None:
    function = {"score": score, "select_from_logits": select_from_logits}[call]
    with pytest.raises(TypeError, match=r"takes [23] positional arguments"):
        function(LOGITS, IDS, 3, 3)  # type: ignore[operator]


@pytest.mark.parametrize("call", CALLS)
def test_nothing_is_changed_by_a_call_that_raises(call: str) -> None:
    logits, ids, lens = LOGITS.clone(), IDS.clone(), INTS.clone()
    with pytest.raises(ValueError, match="kind"):
        CALLS[call](logits, ids, draft_lens=lens, kind="none")
    assert torch.equal(logits, LOGITS) and torch.equal(ids, IDS) and torch.equal(lens, INTS)
