"""Tables of costs: what they answer between and beyond their points, and what they refuse."""

from __future__ import annotations

import json
import math
import re
from fractions import Fraction

import pytest
import torch

from tetris_kernels import CostTable
from tetris_kernels.costs import MAX_ENDS

KEY = {"device": "a CPU", "dtype": "bfloat16"}


def table(**changes) -> CostTable:
    points = {"tokens": (4, 8, 16), "seconds": (1.0, 1.5, 4.0), "draft_seconds": (0.0, 0.25, 0.5)}
    return CostTable(**({"key": KEY} | points | changes))


def line(tokens: int) -> Fraction:
    """By hand: flat below, straight between, the last line beyond."""
    if tokens <= 4:
        return Fraction(1)
    if tokens <= 8:
        return 1 + Fraction(tokens - 4, 8)
    return Fraction(3, 2) + Fraction(5 * (tokens - 8), 16)


@pytest.mark.parametrize("tokens", [0, 1, 3, 4, 5, 7, 8, 9, 15, 16, 17, 40, 10_000])
def test_verification(tokens):
    assert table().verification(tokens) == pytest.approx(float(line(tokens)), rel=1e-12)


def test_verification_never_falls():
    seconds = [table().verification(tokens) for tokens in range(100)]
    assert seconds == sorted(seconds)


def test_a_flat_table():
    flat = table(tokens=(1, 2), seconds=(3.0, 3.0))
    assert {flat.verification(tokens) for tokens in (0, 1, 2, 999)} == {3.0}
    text = "cost table: expected seconds that rise somewhere, or every draft is worth verifying, got 3.0 from 1 to 2"
    for refused in (flat.require_rising, flat.ends):
        with pytest.raises(ValueError, match=text):
            refused()


def test_a_staircase():
    stairs = table(staircase=True)
    assert [stairs.verification(tokens) for tokens in (0, 4, 5, 8, 9, 16)] == [1.0, 1.0, 1.5, 1.5, 4.0, 4.0]
    with pytest.raises(ValueError, match="tokens: expected at most 16, the last bucket, got 17"):
        stairs.verification(17)


def test_ends():
    tokens, seconds = table().ends("cpu")
    assert (tokens.tolist(), tokens.dtype) == ([4, 8, 16], torch.int32)
    assert (seconds.tolist(), seconds.dtype) == ([1.0, 1.5, 4.0], torch.float32)
    many = tuple(range(1, MAX_ENDS + 2))
    with pytest.raises(ValueError, match=f"tokens: expected at most {MAX_ENDS} points, got {MAX_ENDS + 1}"):
        table(tokens=many, seconds=tuple(map(float, many))).ends()


def test_drafting():
    assert [table().drafting(length) for length in range(3)] == [0.0, 0.25, 0.5]


@pytest.mark.parametrize("length", [-1, 3])
def test_drafting_beyond_the_table(length):
    with pytest.raises(ValueError, match=f"length: expected 0 to 2 drafts, got {length}"):
        table().drafting(length)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"tokens": (), "seconds": ()}, "tokens, seconds: expected two points or more, as many of each, got 0 and 0"),
        ({"tokens": (1,), "seconds": (1.0,)}, "tokens, seconds: expected two points or more, as many of each, got 1"),
        ({"tokens": (1, 2)}, "tokens, seconds: expected two points or more, as many of each, got 2 and 3"),
        ({"tokens": (0, 1, 2)}, "tokens: expected rising integers from 1 on, got [0, 1, 2]"),
        ({"tokens": (1, 1, 2)}, "tokens: expected rising integers from 1 on, got [1, 1, 2]"),
        ({"tokens": (1, math.nan, 2)}, "tokens: expected rising integers from 1 on, got [1, nan, 2]"),
        ({"tokens": (1, 1.5, 2)}, "tokens: expected rising integers from 1 on, got [1, 1.5, 2]"),
        ({"seconds": (1.0, 0.9, 1.0)}, "seconds: expected numbers from 0 on that never fall, got [1.0, 0.9, 1.0]"),
        ({"seconds": (1.0, math.nan, 1.0)}, "seconds: expected numbers from 0 on that never fall, got [1.0, nan"),
        ({"seconds": (1.0, 2.0, math.inf)}, "seconds: expected numbers from 0 on that never fall, got [1.0, 2.0, inf"),
        ({"seconds": (0.0, 1.0, 2.0)}, "seconds: expected numbers above 0, got [0.0, 1.0, 2.0]"),
        ({"draft_seconds": ()}, "draft_seconds: expected numbers from 0 on that never fall, got []"),
        ({"draft_seconds": (-1.0, 0.0)}, "draft_seconds: expected numbers from 0 on that never fall, got [-1.0, 0.0]"),
        ({"draft_seconds": (1.0, 0.0)}, "draft_seconds: expected numbers from 0 on that never fall, got [1.0, 0.0]"),
    ],
)
def test_bad_tables(changes, text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}"):
        table(**changes)


def test_a_table_of_something_else():
    table().require(dict(reversed(KEY.items())))
    for key, text in (
        (KEY | {"dtype": "float32"}, "cost table: expected one of dtype float32, got bfloat16"),
        ({"device": "a CPU"}, "cost table: expected one of dtype None, got bfloat16"),
        (KEY | {"model": "small"}, "cost table: expected one of model small, got None"),
    ):
        with pytest.raises(ValueError, match=text):
            table().require(key)


def test_saved_and_loaded(tmp_path):
    path = tmp_path / "costs.json"
    for saved in (table(), table(staircase=True)):
        saved.save(path)
        assert CostTable.load(path) == saved


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "JSONDecodeError"),
        ("[]", "TypeError"),
        ("{}", "KeyError: 'tokens'"),
        (json.dumps({"tokens": 3, "seconds": [1], "draft_seconds": [1], "key": {}}), "TypeError"),
        (json.dumps({"tokens": ["a", "b"], "seconds": [1, 2], "draft_seconds": [1], "key": {}}), "ValueError: tokens"),
        (json.dumps({"tokens": [1, 2], "seconds": ["a", "b"], "draft_seconds": [1], "key": {}}), "TypeError"),
        (json.dumps({"tokens": [1, 2], "seconds": [1, 2], "draft_seconds": [1], "key": "a"}), "ValueError"),
        (json.dumps({"tokens": [2, 1], "seconds": [1, 2], "draft_seconds": [1], "key": {}}), "ValueError: tokens: exp"),
    ],
)
def test_files_of_something_else(tmp_path, text, error):
    path = tmp_path / "costs.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(str(path))}: expected a cost table in JSON, got {error}"):
        CostTable.load(path)
