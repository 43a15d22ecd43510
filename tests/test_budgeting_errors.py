"""What `expected_accepts` and `choose_budget` refuse, by the text of the error."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from cases import certain

from tetris_kernels import choose_budget, expected_accepts

LOGPROBS = certain(3, 4)
BUDGETS = torch.tensor([3, 1])
TOKENS, SECONDS = torch.tensor([3, 5, 9]), torch.tensor([1.0, 1.1, 1.3])

REFUSED_INTEGERS = [
    ([1, 2, 3], TypeError, "expected a torch.Tensor, got list"),
    (5, TypeError, "expected a torch.Tensor, got int"),
    (TOKENS.float(), TypeError, "expected dtype torch.int32 or torch.int64, got torch.float32"),
    (TOKENS > 0, TypeError, "expected dtype torch.int32 or torch.int64, got torch.bool"),
    (TOKENS[:, None], ValueError, "expected 1 dimension [{name}], got shape [3, 1]"),
    (TOKENS[0], ValueError, "expected 1 dimension [{name}], got shape []"),
    (torch.zeros(65, dtype=torch.int32), ValueError, "expected {least} to 64 elements, got 65"),
    (TOKENS.to("meta"), ValueError, "expected device cpu as draft_logprobs, got meta"),
]
REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"draft_logprobs": LOGPROBS.double()}, TypeError, "draft_logprobs: expected dtype torch.float32 or"),
    ({"draft_logprobs": LOGPROBS[0]}, ValueError, "draft_logprobs: expected 2 dimensions [requests, drafts], got"),
    ({"draft_logprobs": torch.zeros(2, 257)}, ValueError, "draft_logprobs: expected at most 256 drafts, got 257"),
    ({"draft_lens": BUDGETS}, ValueError, "draft_lens: expected shape [3], one value per request, got [2]"),
    ({"min_lens": TOKENS.short()}, TypeError, "min_lens: expected dtype torch.int32 or torch.int64, got torch.int16"),
    ({"max_lens": [1, 2, 3]}, TypeError, "max_lens: expected a torch.Tensor, got list"),
    ({"log_weights": TOKENS}, TypeError, "log_weights: expected dtype torch.float32, got torch.int64"),
    ({"backend": "cuda"}, ValueError, "backend: expected one of 'auto', 'torch', 'triton', got 'cuda'"),
]
REFUSED_CHOICES: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"tokens": TOKENS[:0], "seconds": SECONDS[:0]}, ValueError, "tokens: expected 1 to 64 elements, got 0"),
    ({"seconds": SECONDS[:2]}, ValueError, "seconds: expected shape [3], one value per end, got [2]"),
    ({"seconds": SECONDS.double()}, TypeError, "seconds: expected dtype torch.float32, got torch.float64"),
    ({"seconds": [1.0, 1.1, 1.3]}, TypeError, "seconds: expected a torch.Tensor, got list"),
    ({"seconds": SECONDS.to("meta")}, ValueError, "seconds: expected device cpu as draft_logprobs, got meta"),
    ({"requests": -1}, ValueError, "requests: expected 0 or more, got -1"),
    ({"requests": True}, TypeError, "requests: expected an integer, got bool"),
    ({"requests": 3.0}, TypeError, "requests: expected an integer, got float"),
    ({"requests": BUDGETS}, ValueError, "requests: expected a tensor of one element, got shape [2]"),
    ({"requests": SECONDS[0]}, TypeError, "requests: expected dtype torch.int32 or torch.int64, got torch.float32"),
    ({"requests": TOKENS[0].to("meta")}, ValueError, "requests: expected device cpu as draft_logprobs, got meta"),
    ({"rule": "best"}, ValueError, "rule: expected one of 'first drop', 'argmax', got 'best'"),
    ({"rule": None}, ValueError, "rule: expected one of 'first drop', 'argmax', got None"),
    (
        {"rule": "argmax"},
        ValueError,
        "rule: expected 'first drop' without greedy=True, got 'argmax': it looks at drafts",
    ),
    ({"min_gain": -0.1}, ValueError, "min_gain: expected a finite number from 0 on, got -0.1"),
    ({"min_gain": float("nan")}, ValueError, "min_gain: expected a finite number from 0 on, got nan"),
    ({"min_gain": float("inf")}, ValueError, "min_gain: expected a finite number from 0 on, got inf"),
    ({"min_gain": "0.1"}, TypeError, "min_gain: expected a number, got str"),
    ({"min_gain": True}, TypeError, "min_gain: expected a number, got bool"),
    ({"min_gain": torch.tensor(0.1)}, TypeError, "min_gain: expected a number, got Tensor"),
]


def name(value: object) -> str:
    return value if isinstance(value, str) else ""


def expect(**changes: Any) -> object:
    return expected_accepts(**{"draft_logprobs": LOGPROBS, "budgets": BUDGETS} | changes)


def choose(**changes: Any) -> object:
    return choose_budget(**{"draft_logprobs": LOGPROBS, "tokens": TOKENS, "seconds": SECONDS} | changes)


@pytest.mark.parametrize(("value", "error", "text"), REFUSED_INTEGERS, ids=name)
def test_budgets_and_tokens(value: Any, error: type[Exception], text: str) -> None:
    for call, argument, least in ((expect, "budgets", 0), (choose, "tokens", 1)):
        with pytest.raises(error, match=re.escape(f"{argument}: {text.format(name=argument, least=least)}")):
            call(**{argument: value})


@pytest.mark.parametrize(("changes", "error", "text"), REFUSED, ids=name)
def test_what_both_take(changes: dict[str, Any], error: type[Exception], text: str) -> None:
    for call in (expect, choose):
        with pytest.raises(error, match=re.escape(text)):
            call(**changes)


@pytest.mark.parametrize(("changes", "error", "text"), REFUSED_CHOICES, ids=name)
def test_choices(changes: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)):
        choose(**changes)


def test_what_is_taken() -> None:
    for requests in (0, np.int64(3), torch.tensor([[3]])):
        choose(requests=requests)
    for min_gain in (0, 1, np.float64(0.5), 1e300):
        choose(min_gain=min_gain)
    choose(rule="argmax", greedy=True)


def test_triton_on_a_cpu_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    for call in (expect, choose):
        with pytest.raises(ValueError, match="backend: 'triton' expects a CUDA, ROCm or XPU tensor"):
            call(backend="triton")
