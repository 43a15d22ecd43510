"""The methods of Selection against loops."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from tetris_kernels import Selection

LENS = [[2, 0, 3, 1], [0, 0, 4], [1, 0, 0], [0, 0], [5], [0], [], list(range(9)), [1] * 7]


def selection(lens: list[int]) -> Selection:
    cu_lens = [0, *itertools.accumulate(lens)]
    return Selection(torch.tensor(lens, dtype=torch.int32), torch.tensor(cu_lens, dtype=torch.int32))


@pytest.mark.parametrize("lens", LENS, ids=str)
@pytest.mark.parametrize("num_drafts", [0, 1, 3, 8, 256])
def test_mask(lens: list[int], num_drafts: int) -> None:
    mask = selection(lens).mask(num_drafts)
    assert mask.dtype == torch.bool and mask.shape == (len(lens), num_drafts)
    assert mask.tolist() == [[j < length for j in range(num_drafts)] for length in lens]


@pytest.mark.parametrize("lens", LENS, ids=str)
def test_indices(lens: list[int]) -> None:
    drafts = [(r, j) for r, length in enumerate(lens) for j in range(length)]
    for capacity in range(len(drafts) + 4):
        request, position = selection(lens).indices(capacity)
        assert request.dtype == position.dtype == torch.int32
        assert request.shape == position.shape == (capacity,)
        slots = (drafts + [(-1, -1)] * capacity)[:capacity]
        assert list(zip(request.tolist(), position.tolist(), strict=True)) == slots


@pytest.mark.parametrize("lens", LENS, ids=str)
def test_from_lens(lens: list[int]) -> None:
    made, expected = Selection.from_lens(torch.tensor(lens, dtype=torch.int32)), selection(lens)
    for got, wanted in zip(made, expected, strict=True):
        assert got.dtype == torch.int32 and torch.equal(got, wanted)


def test_methods_change_nothing() -> None:
    picked = selection([2, 0, 3])
    picked.mask(4).fill_(False)
    for index in picked.indices(8):
        index.fill_(7)
    assert picked.lens.tolist() == [2, 0, 3] and picked.cu_lens.tolist() == [0, 2, 2, 5]


def test_it_is_a_named_tuple() -> None:
    lens, cu_lens = picked = selection([1, 2])
    assert lens is picked.lens and cu_lens is picked.cu_lens
    assert Selection._fields == ("lens", "cu_lens")


@pytest.mark.parametrize(("method", "name"), [("mask", "num_drafts"), ("indices", "capacity")])
@pytest.mark.parametrize(
    ("size", "error", "text"),
    [
        (-1, ValueError, "expected 0 or more, got -1"),
        (True, TypeError, "expected an integer, got bool"),
        (2.0, TypeError, "expected an integer, got float"),
        ("2", TypeError, "expected an integer, got str"),
        (None, TypeError, "expected an integer, got NoneType"),
        (torch.tensor(2), TypeError, "expected an integer, got Tensor"),
    ],
)
def test_bad_sizes(method: str, name: str, size: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=f"^{name}: {text}$"):
        getattr(selection([1, 2]), method)(size)
