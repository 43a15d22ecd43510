"""What `accept` refuses, by the text of the error."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from acceptance_cases import Case, batch
from cases import INF, NAN, Target

from tetris_kernels import accept, backend

CASE = batch("", 3, 4, 8, full=True, lens=(4, 1, 0))
CAPACITY = CASE.target.shape[0]
INTS = torch.ones(3, dtype=torch.int32)
FLOAT = "torch.float32 or torch.bfloat16 or torch.float16"

REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"target_logits": None}, TypeError, "target_logits: expected a torch.Tensor, got NoneType"),
    ({"target_logits": np.zeros((8, 8))}, TypeError, "target_logits: expected a torch.Tensor, got ndarray"),
    ({"target_logits": CASE.target.double()}, TypeError, f"expected dtype {FLOAT}, got torch.float64"),
    (
        {"target_logits": CASE.target[0]},
        ValueError,
        "target_logits: expected 2 dimensions [capacity, vocabulary], got shape [8]",
    ),
    ({"target_logits": CASE.target[:, :0]}, ValueError, "target_logits: expected a vocabulary, got shape"),
    ({"target_logits": CASE.target[1:]}, ValueError, "packed.request_ids: expected shape [8], one per row of"),
    ({"draft_ids": CASE.ids.short()}, TypeError, "draft_ids: expected dtype torch.int32 or torch.int64"),
    ({"draft_ids": CASE.ids.float()}, TypeError, "or torch.int64, got torch.float32"),
    ({"draft_ids": CASE.ids.flatten()}, ValueError, "expected 2 dimensions [requests, drafts], got shape [12]"),
    ({"draft_ids": torch.zeros(3, 257).int()}, ValueError, "draft_ids: expected at most 256 drafts, got 257"),
    ({"draft_ids": CASE.ids[:2]}, ValueError, "packed.cu_seqlens: expected shape [3], one more than requests, got [4]"),
    ({"draft_ids": CASE.ids.to("meta")}, ValueError, "draft_ids: expected device cpu as target_logits, got meta"),
    ({"uniforms": CASE.uniforms.double()}, TypeError, "uniforms: expected dtype torch.float32, got torch.float64"),
    ({"uniforms": [[0.5]]}, TypeError, "uniforms: expected a torch.Tensor, got list"),
    (
        {"uniforms": CASE.uniforms[:, 1:]},
        ValueError,
        "uniforms: expected shape [3, 5], one more than drafts, got [3, 4]",
    ),
    ({"uniforms": CASE.uniforms.to("meta")}, ValueError, "uniforms: expected device cpu as target_logits, got meta"),
    ({"draft_logits": CASE.ids}, TypeError, f"draft_logits: expected dtype {FLOAT}, got torch.int32"),
    ({"draft_logits": 0.5}, TypeError, "draft_logits: expected a torch.Tensor, got float"),
    (
        {"draft_logits": torch.zeros(3, 4, 9)},
        ValueError,
        "draft_logits: expected shape [3, 4, 8], one row per draft, got [3, 4, 9]",
    ),
    ({"draft_logits": torch.zeros(3, 8)}, ValueError, "expected shape [3, 4, 8], one row per draft, got [3, 8]"),
    ({"draft_logits": torch.zeros(3, 4, 8, device="meta")}, ValueError, "draft_logits: expected device cpu"),
    ({"temperature": "1"}, TypeError, "temperature: expected a number or a tensor, got str"),
    ({"temperature": True}, TypeError, "temperature: expected a number or a tensor, got bool"),
    ({"temperature": None}, TypeError, "temperature: expected a number or a tensor, got NoneType"),
    ({"temperature": -0.5}, ValueError, "temperature: expected a finite number from 0 on, got -0.5"),
    ({"temperature": NAN}, ValueError, "temperature: expected a finite number from 0 on, got nan"),
    ({"temperature": INF}, ValueError, "temperature: expected a finite number from 0 on, got inf"),
    ({"temperature": INTS}, TypeError, "temperature: expected dtype torch.float32, got torch.int32"),
    ({"temperature": torch.ones(1)}, ValueError, "temperature: expected shape [3], one value per request, got [1]"),
    ({"temperature": torch.ones(3, device="meta")}, ValueError, "temperature: expected device cpu as"),
    ({"bonus": "free"}, ValueError, "bonus: expected one of 'coupled', 'direct', got 'free'"),
    ({"bonus": None}, ValueError, "bonus: expected one of 'coupled', 'direct', got None"),
    ({"backend": "cuda"}, ValueError, "backend: expected one of 'auto', 'torch', 'triton', got 'cuda'"),
    ({"packed": None}, TypeError, "packed: expected a PackedBatch, got NoneType"),
    ({"packed": tuple(CASE.packed())}, TypeError, "packed: expected a PackedBatch, got tuple"),
]
REFUSED_LAYOUTS: list[tuple[str, Any, type[Exception], str]] = [
    ("request_ids", torch.zeros(CAPACITY), TypeError, "expected dtype torch.int32, got torch.float32"),
    ("request_ids", INTS, ValueError, f"expected shape [{CAPACITY}], one per row of target_logits, got [3]"),
    ("cu_seqlens", torch.zeros(4, dtype=torch.int64), TypeError, "expected dtype torch.int32, got torch.int64"),
    ("cu_seqlens", INTS, ValueError, "expected shape [4], one more than requests, got [3]"),
    ("lens", INTS[:2], ValueError, "expected shape [3], one value per request, got [2]"),
    ("lens", [1, 1, 1], TypeError, "expected a torch.Tensor, got list"),
    ("draft_lens", INTS.long(), TypeError, "expected dtype torch.int32, got torch.int64"),
    ("draft_lens", INTS.to("meta"), ValueError, "expected device cpu as target_logits, got meta"),
]


def call(**changes: Any) -> object:
    given = {"target_logits": CASE.target, "packed": CASE.packed(), "draft_ids": CASE.ids, "uniforms": CASE.uniforms}
    given |= {"draft_logits": CASE.draft, "backend": "torch"} | changes
    positional = [given.pop(name) for name in ("target_logits", "packed", "draft_ids", "uniforms")]
    return accept(*positional, **given)


@pytest.mark.parametrize(("changes", "error", "text"), REFUSED, ids=lambda x: x if isinstance(x, str) else "")
def test_arguments(changes: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=re.escape(text)) as caught:
        call(**changes)
    assert caught.type is error


@pytest.mark.parametrize(
    ("name", "value", "error", "text"), REFUSED_LAYOUTS, ids=lambda x: x if isinstance(x, str) else ""
)
def test_packed_tensors(name: str, value: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=rf"^packed\.{name}: {re.escape(text)}$"):
        call(packed=CASE.packed()._replace(**{name: value}))


def test_triton_on_a_cpu_tensor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    with pytest.raises(ValueError, match=r"^backend: 'triton' expects a CUDA, ROCm or XPU tensor"):
        call(backend="triton")
    monkeypatch.setattr(backend, "_has_triton", lambda: False)
    with pytest.raises(ValueError, match=r"^backend: 'triton' needs the package triton, which is not installed$"):
        call(backend="triton")


def test_optional_arguments_have_names() -> None:
    with pytest.raises(TypeError, match="takes 4 positional arguments"):
        accept(CASE.target, CASE.packed(), CASE.ids, CASE.uniforms, CASE.draft)  # type: ignore[misc]


def _large(vocabulary: int) -> Case:
    case = batch("", 1, 1, 8, lens=(1,))
    target = torch.full((2, vocabulary), -INF)
    target[:, -1] = 0.0
    return Case("", target, (1,), torch.full_like(case.ids, vocabulary - 1), case.uniforms)


def test_a_larger_vocabulary(triton_target: Target) -> None:
    case = _large(262145).on(triton_target.device)
    text = "backend 'triton': expected a vocabulary of up to 262144 tokens, got 262145; 'auto' and 'torch' take it"
    with pytest.raises(ValueError, match=f"^{text}$"):
        case.accept("triton")
    assert case.accept("auto").tokens.tolist() == [[262144, 262144]]


@pytest.mark.parametrize("vocabulary", [262143, 262144])
def test_the_largest_vocabulary(vocabulary: int, target: Target) -> None:
    done = _large(vocabulary).on(target.device).accept(target.backend)
    assert done.tokens.tolist() == [[vocabulary - 1, vocabulary - 1]] and done.counts.tolist() == [2]


@pytest.mark.parametrize("wrong", [{"bonus": "none"}, {"temperature": -1.0}, {"uniforms": CASE.uniforms[1:]}])
def test_nothing_is_changed_by_a_call_that_raises(wrong: dict[str, Any]) -> None:
    target, ids = CASE.target.clone(), CASE.ids.clone()
    with pytest.raises(ValueError, match="expected"):
        call(**wrong)
    assert torch.equal(CASE.target, target) and torch.equal(CASE.ids, ids)
