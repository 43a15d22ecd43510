"""The recorded drafts that come with the package, and the script that extracts them."""

from __future__ import annotations

import re
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from tetris_decode.extract import extract
from tetris_decode.traces import load_runs

DATA = resources.files("tetris_decode").joinpath("data")


def test_arrays_agree_in_shape_and_are_probabilities():
    for name, run in load_runs().items():
        assert run.name == name
        assert run.log_q.shape == run.accepted.shape == (run.num_steps.sum(), 8)
        assert run.log_q.dtype == np.float32 and run.accepted.dtype == np.bool_
        assert np.isfinite(run.log_q).all() and (run.log_q <= 0).all()
        assert (np.bincount(run.request) == run.num_steps).all()
        assert run.num_requests == 48


@pytest.mark.parametrize(("drafter", "expected"), [("layerskip26of30", 0.63), ("ngram", 0.21), ("distilled4L", 0.25)])
def test_first_drafts_are_accepted_as_often_as_in_the_recording(drafter, expected):
    first = np.concatenate([run.accepted[:, 0] for name, run in load_runs().items() if name.startswith(drafter)])
    assert first.mean() == pytest.approx(expected, abs=0.01)


def test_likely_drafts_are_accepted_more_often():
    # What every selection by draft probability lives on; a swapped or shifted column would lose it.
    for run in load_runs().values():
        median = np.median(run.log_q)
        assert run.accepted[run.log_q > median].mean() > run.accepted[run.log_q <= median].mean() + 0.1


def test_readme_describes_the_data():
    runs = load_runs()
    rows = re.findall(
        r"^\| `(\w+@T[\d.]+)` \|.*\| ([\d,]+) \| (\.\d\d) \|$", DATA.joinpath("README.md").read_text(), re.M
    )
    assert [name for name, _, _ in rows] == list(runs)
    for name, count, first in rows:
        assert int(count.replace(",", "")) == len(runs[name].log_q)
        assert float(first) == round(float(runs[name].accepted[:, 0].mean()), 2)


def test_file_is_small():
    assert len(DATA.joinpath("traces.npz").read_bytes()) < 500_000


def recording() -> dict[str, np.ndarray]:
    """Two runs in the order (run, step, request): request 0 has three steps, request 1 has one (or two)."""
    rows = [(0, 0, 0), (0, 0, 1), (0, 1, 0), (0, 2, 0), (1, 0, 0), (1, 0, 1), (1, 1, 0), (1, 1, 1), (1, 2, 0)]
    run, step, request = (np.repeat(column, 8) for column in zip(*rows, strict=True))
    rng = np.random.default_rng(5)
    return {
        "run": run,
        "step": step,
        "request": request,
        "draft_idx": np.tile(np.arange(8), len(rows)),
        "q": rng.uniform(0.1, 1, len(run)).astype(np.float32),
        "accepted": rng.random(len(run)) < 0.5,
        "run_name": np.array(["a@T0", "b@T0"]),
    }


def test_extract_keeps_every_row_and_sorts_by_request(tmp_path: Path):
    full = recording()
    np.savez(tmp_path / "full.npz", **full)
    extract(str(tmp_path / "full.npz"), str(tmp_path / "out.npz"))
    with np.load(tmp_path / "out.npz", allow_pickle=False) as out:
        assert out["num_steps"].tolist() == [[3, 1], [3, 2]]
        order = [0, 2, 3, 1, 4, 6, 8, 5, 7]
        np.testing.assert_allclose(np.exp(out["log_q"]), full["q"].reshape(-1, 8)[order], rtol=1e-6)
        assert (np.unpackbits(out["accepted"], axis=1) == full["accepted"].reshape(-1, 8)[order]).all()
        assert out["run_name"].tolist() == ["a@T0", "b@T0"]


@pytest.mark.parametrize(
    ("column", "message"),
    [("draft_idx", r"expected drafts 0\.\.7 .* side by side"), ("step", "expected steps 0, 1, 2, .* without gaps")],
)
def test_extract_refuses_a_recording_with_holes(tmp_path: Path, column: str, message: str):
    full = recording()
    full[column] = full[column] + 1
    np.savez(tmp_path / "full.npz", **full)
    with pytest.raises(ValueError, match=message):
        extract(str(tmp_path / "full.npz"), str(tmp_path / "out.npz"))
    assert not (tmp_path / "out.npz").exists()
