"""What calibration refuses, by the text of the error."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from test_selection_errors import refused

from tetris_kernels import Calibration, Uncalibrated

SCORES = torch.rand(3, 4).log()
LENS = torch.ones(3, dtype=torch.int32)
COUPLED = torch.zeros(3, dtype=torch.bool)

REFUSED_OPTIONS = [
    ("num_drafts", -1, ValueError, "num_drafts: expected 0 or more, got -1"),
    ("num_drafts", 257, ValueError, "num_drafts: expected at most 256, got 257"),
    ("num_drafts", 4.0, TypeError, "num_drafts: expected an integer, got float"),
    ("kind", "logit", ValueError, "kind: expected one of 'token', 'top', 'collision', got 'logit'"),
    ("half_life", 0, ValueError, "half_life: expected a number above 0, got 0"),
    ("half_life", math.nan, ValueError, "half_life: expected a number above 0, got nan"),
    ("half_life", None, TypeError, "half_life: expected a number, got NoneType"),
    ("half_life", True, TypeError, "half_life: expected a number, got bool"),
    ("warmup", -1, ValueError, "warmup: expected 0 or more, got -1"),
    ("warmup", 0.5, TypeError, "warmup: expected an integer, got float"),
    ("refit_every", 0, ValueError, "refit_every: expected 1 or more, got 0"),
    ("refit_every", False, TypeError, "refit_every: expected an integer, got bool"),
    ("ridge", 0.0, ValueError, "ridge: expected a number above 0, got 0.0"),
    ("ridge", math.inf, ValueError, "ridge: expected a finite number, got inf"),
    ("ridge", "1", TypeError, "ridge: expected a number, got str"),
]
REFUSED_SCORES = [
    (None, TypeError, "scores: expected a torch.Tensor, got NoneType"),
    (SCORES.numpy(), TypeError, "scores: expected a torch.Tensor, got ndarray"),
    (SCORES.double(), TypeError, "scores: expected dtype torch.float32 or torch.bfloat16"),
    (SCORES[0], ValueError, "scores: expected 2 dimensions [requests, drafts], got shape [4]"),
    (torch.zeros(3, 5), ValueError, "scores: expected at most the 4 drafts of this calibration, got 5"),
    (SCORES.to("meta"), ValueError, "scores: expected device cpu as calibration, got meta"),
]
REFUSED_OUTCOMES = [
    ("lens", None, TypeError, "lens: expected a torch.Tensor, got NoneType"),
    ("lens", LENS.float(), TypeError, "lens: expected dtype torch.int32 or torch.int64, got torch.float32"),
    ("lens", LENS[:2], ValueError, "lens: expected shape [3], one value per request, got [2]"),
    ("lens", LENS.to("meta"), ValueError, "lens: expected device cpu as scores, got meta"),
    ("counts", LENS.long(), TypeError, "counts: expected dtype torch.int32, got torch.int64"),
    ("counts", LENS[None], ValueError, "counts: expected shape [3], one value per request, got [1, 3]"),
    ("coupled", LENS, TypeError, "coupled: expected dtype torch.bool, got torch.int32"),
    ("coupled", COUPLED[:1], ValueError, "coupled: expected shape [3], one value per request, got [1]"),
    ("draft_lens", [1, 1, 1], TypeError, "draft_lens: expected a torch.Tensor, got list"),
    ("draft_lens", LENS[:0], ValueError, "draft_lens: expected shape [3], one value per request, got [0]"),
    ("bonus", "none", ValueError, "bonus: expected one of 'coupled', 'direct', got 'none'"),
    ("kind", "top", ValueError, "kind: expected 'token', which this calibration is of, got 'top'"),
]


def update(calibration: Any, **changed: Any) -> None:
    arguments = {"scores": SCORES, "lens": LENS, "counts": LENS, "coupled": COUPLED, "kind": "token"} | changed
    calibration.update(**arguments)


@pytest.mark.parametrize(("name", "value", "error", "text"), REFUSED_OPTIONS)
def test_options(name, value, error, text):
    options = {"num_drafts": 4} | {name: value}
    refused(error, text, lambda: Calibration(options.pop("num_drafts"), **options))


@pytest.mark.parametrize(("value", "error", "text"), REFUSED_SCORES)
def test_scores(value, error, text):
    refused(error, text, lambda: Calibration(4)(value, kind="token"))
    refused(error, text, lambda: update(Calibration(4), scores=value))


@pytest.mark.parametrize(("name", "value", "error", "text"), REFUSED_OUTCOMES)
def test_outcomes(name, value, error, text):
    calibration = Calibration(4)
    refused(error, text, lambda: update(calibration, **{name: value}))
    assert calibration.updates == 0 and not calibration.state_dict()["counts"].any(), "nothing was learned of it"


@pytest.mark.parametrize("own", ["token", "top", "collision"])
@pytest.mark.parametrize("kind", ["token", "top", "collision", "logit"])
@pytest.mark.parametrize("make", [lambda own: Calibration(4, kind=own), lambda own: Uncalibrated(kind=own)])
def test_another_kind_of_score(make, own, kind):
    """What was learned from scores that look at the drawn token must not pass for one of the prefix."""
    calibration = make(own)
    if kind == own:
        calibration(SCORES, kind=kind)
        update(calibration, kind=kind)
        return
    text = f"kind: expected '{own}', which this calibration is of, got '{kind}'"
    if kind == "logit":
        text = "kind: expected one of 'token', 'top', 'collision', got 'logit'"
    refused(ValueError, text, lambda: calibration(SCORES, kind=kind))
    refused(ValueError, text, lambda: update(calibration, kind=kind))


@pytest.mark.parametrize(
    ("state", "text"),
    [
        ({}, "state: expected what state_dict returns, got none of counts, kind, updates, weights"),
        ({"kind": "token", "updates": 1}, "state: expected what state_dict returns, got none of counts, weights"),
        (Calibration(4, kind="top").state_dict(), "kind: expected 'token', which this calibration is of, got 'top'"),
        (Calibration(5).state_dict(), "state: expected counts of shape [2, 4, 128], got [2, 5, 128]"),
        (Calibration(4).state_dict() | {"weights": torch.zeros(4)}, "state: expected weights of shape [5], got [4]"),
        (Calibration(4).state_dict() | {"updates": -1}, "updates: expected 0 or more, got -1"),
    ],
)
def test_states_of_something_else(state, text):
    calibration = Calibration(4)
    update(calibration)
    before = calibration.state_dict()
    refused(ValueError, text, lambda: calibration.load_state_dict(state))
    after = calibration.state_dict()
    assert torch.equal(before["counts"], after["counts"]) and after["updates"] == 1, "as it was"


def test_a_state_of_another_kind_for_the_identity():
    refused(ValueError, "kind: expected 'top'", lambda: Uncalibrated(kind="top").load_state_dict({"kind": "token"}))
    refused(ValueError, "kind: expected one of 'token'", lambda: Uncalibrated(kind="top").load_state_dict({}))


def test_numpy_integers_are_integers():
    assert Calibration(np.int64(4), warmup=np.int32(3)).warmup == 3
