"""What `pack` refuses, by the text of the error."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch
from cases import Index, certain, lens
from packing_cases import drafts

from tetris_kernels import PackedBatch, Selection, backend, pack, select

IDS = drafts(3, 4)
LENS = lens([2, 0, 4])
SELECTION = Selection(LENS, lens([0, 2, 2, 6]))
INTS = "expected dtype torch.int32 or torch.int64"


def packed(**changes: Any) -> PackedBatch:
    arguments: dict[str, Any] = {
        "selection": SELECTION,
        "draft_ids": IDS,
        "anchor_ids": IDS[:, 0],
        "context_lens": LENS,
        "capacity": 10,
    }
    return pack(**arguments | changes)


def refused(error: type[Exception], text: str, **changes: Any) -> None:
    with pytest.raises(error, match=f"^{re.escape(text)}") as caught:
        packed(**changes)
    assert caught.type is error


REFUSED = [
    ("selection", LENS, TypeError, "expected a Selection, got Tensor"),
    ("selection", (LENS, LENS), TypeError, "expected a Selection, got tuple"),
    ("selection", None, TypeError, "expected a Selection, got NoneType"),
    ("draft_ids", None, TypeError, "expected a torch.Tensor, got NoneType"),
    ("draft_ids", np.zeros((3, 4), np.int64), TypeError, "expected a torch.Tensor, got ndarray"),
    ("draft_ids", IDS.float(), TypeError, f"{INTS}, got torch.float32"),
    ("draft_ids", IDS.short(), TypeError, f"{INTS}, got torch.int16"),
    ("draft_ids", IDS[0], ValueError, "expected 2 dimensions [requests, drafts], got shape [4]"),
    ("draft_ids", IDS[None], ValueError, "expected 2 dimensions [requests, drafts], got shape [1, 3, 4]"),
    ("draft_ids", drafts(3, 257), ValueError, "expected at most 256 drafts, got 257"),
    ("anchor_ids", [1, 2, 3], TypeError, "expected a torch.Tensor, got list"),
    ("anchor_ids", IDS[:, 0].int(), TypeError, "expected dtype torch.int64, got torch.int32"),
    ("anchor_ids", IDS[:2, 0], ValueError, "expected shape [3], one value per request, got [2]"),
    ("anchor_ids", IDS[:, :1], ValueError, "expected shape [3], one value per request, got [3, 1]"),
    ("anchor_ids", IDS[:, 0].to("meta"), ValueError, "expected device cpu as draft_ids, got meta"),
    ("context_lens", 5, TypeError, "expected a torch.Tensor, got int"),
    ("context_lens", LENS.float(), TypeError, f"{INTS}, got torch.float32"),
    ("context_lens", LENS[:2], ValueError, "expected shape [3], one value per request, got [2]"),
    ("context_lens", LENS[0], ValueError, "expected shape [3], one value per request, got []"),
    ("context_lens", LENS.to("meta"), ValueError, "expected device cpu as draft_ids, got meta"),
    ("draft_lens", [1, 2, 3], TypeError, "expected a torch.Tensor, got list"),
    ("draft_lens", LENS > 0, TypeError, f"{INTS}, got torch.bool"),
    ("draft_lens", LENS[:2], ValueError, "expected shape [3], one value per request, got [2]"),
    ("draft_lens", LENS.to("meta"), ValueError, "expected device cpu as draft_ids, got meta"),
    ("capacity", -1, ValueError, "expected 0 or more, got -1"),
    ("capacity", Index(-5), ValueError, "expected 0 or more, got -5"),
    ("capacity", True, TypeError, "expected an integer, got bool"),
    ("capacity", 8.0, TypeError, "expected an integer, got float"),
    ("capacity", None, TypeError, "expected an integer, got NoneType"),
    ("capacity", torch.tensor(8), TypeError, "expected an integer, got Tensor"),
    ("capacity", 2**31, ValueError, "expected at most 2147483647, got 2147483648"),
    ("pad_id", -1, ValueError, "expected 0 or more, got -1"),
    ("pad_id", False, TypeError, "expected an integer, got bool"),
    ("pad_id", 1.0, TypeError, "expected an integer, got float"),
    ("pad_id", torch.tensor(1), TypeError, "expected an integer, got Tensor"),
    ("backend", "cuda", ValueError, "expected one of 'auto', 'torch', 'triton', got 'cuda'"),
    ("backend", None, ValueError, "expected one of 'auto', 'torch', 'triton', got None"),
]


@pytest.mark.parametrize(
    ("name", "value", "error", "text"), REFUSED, ids=[f"{name}, {text}" for name, _, _, text in REFUSED]
)
def test_arguments(name: str, value: Any, error: type[Exception], text: str) -> None:
    refused(error, f"{name}: {text}", **{name: value})


@pytest.mark.parametrize(
    ("value", "error", "text"),
    [
        ([2, 0, 4], TypeError, "expected a torch.Tensor, got list"),
        (LENS.long(), TypeError, "expected dtype torch.int32, got torch.int64"),
        (LENS[:2], ValueError, "expected shape [3], one value per request, got [2]"),
        (LENS.to("meta"), ValueError, "expected device cpu as draft_ids, got meta"),
    ],
    ids=lambda x: x if isinstance(x, str) else "",
)
def test_lens_of_the_selection(value: Any, error: type[Exception], text: str) -> None:
    refused(error, f"selection.lens: {text}", selection=Selection(value, SELECTION.cu_lens))


@pytest.mark.parametrize("value", [None, "0", "false"])
def test_triton_on_a_cpu_tensor(value: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if value is not None:
        monkeypatch.setenv("TRITON_INTERPRET", value)
    text = "backend: 'triton' expects a CUDA, ROCm or XPU tensor (a CPU tensor only under TRITON_INTERPRET=1), got one"
    refused(ValueError, text, backend="triton")


def test_triton_that_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "_has_triton", lambda: False)
    refused(ValueError, "backend: 'triton' needs the package triton, which is not installed", backend="triton")
    assert packed().cu_seqlens[-1] == 9


def test_options_have_names() -> None:
    with pytest.raises(TypeError, match="takes 4 positional arguments"):
        pack(SELECTION, IDS, IDS[:, 0], LENS, 10)  # type: ignore[misc]
    with pytest.raises(TypeError, match="missing 1 required keyword-only argument: 'capacity'"):
        pack(SELECTION, IDS, IDS[:, 0], LENS)  # type: ignore[call-arg]


def test_a_selection_of_another_batch() -> None:
    other = select(certain(4, 4), 3)
    refused(ValueError, "selection.lens: expected shape [3], one value per request, got [4]", selection=other)


@pytest.mark.parametrize("wrong", [{"capacity": -1}, {"pad_id": -1}, {"draft_lens": LENS[:1]}, {"backend": "none"}])
def test_nothing_is_changed_by_a_call_that_raises(wrong: dict[str, Any]) -> None:
    given = {"draft_ids": IDS.clone(), "context_lens": LENS.clone(), "anchor_ids": IDS[:, 0].clone()}
    before = {name: tensor.clone() for name, tensor in given.items()}
    with pytest.raises(ValueError):
        packed(**given | wrong)
    assert all(torch.equal(tensor, before[name]) for name, tensor in given.items())
