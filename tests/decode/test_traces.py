"""The recorded drafts that come with the package, and the file format."""

from __future__ import annotations

import re
from dataclasses import replace
from importlib import resources

import numpy as np
import pytest
from made_runs import head, made_run

from tetris_decode import traces
from tetris_decode.traces import Run, load_runs

DATA = resources.files("tetris_decode").joinpath("data")
MADE = made_run([[-0.5, -1.0]] * 5, [[1, 0]] * 3 + [[0, 1]] * 2, [4, 1, 3])


@pytest.mark.parametrize("name", load_runs())
def test_recorded_runs_hold_together(name):
    run = load_runs()[name]
    there = np.arange(8) < run.draft_lens[:, None]
    assert run.name == name and run.num_drafts == 8 and run.num_requests >= 64
    assert run.log_q.dtype == np.float32 and run.acceptance.dtype == np.float16 and run.accepted.dtype == np.bool_
    assert (run.log_q[there] <= 0).all() and np.isfinite(run.log_q).all()
    assert not run.ids[~there].any() and not run.log_q[~there].any() and not run.accepted[~there].any()
    assert run.ids.max() < 49152 and run.drawn == (name == "layer-skip@T0.7")
    if name.endswith("@T0"):
        assert (run.acceptance == run.accepted).all()
    assert not run.accepted[run.acceptance == 0].any()
    assert {"model", "drafter", "temperature", "top_p", "prompts", "dtype", "versions"} == run.about.keys()


@pytest.mark.parametrize("name", [name for name, run in load_runs().items() if not run.drawn])
def test_accepted_drafts_are_the_text(name):
    """So a replay that accepts them goes on where the text does."""
    run = load_runs()[name]
    ends = run.num_tokens.cumsum()[run.request]
    at = ends - run.num_tokens[run.request] + run.generated
    led = np.ones(len(at), np.bool_)
    for j in range(8):
        told = led & (j < run.draft_lens) & (at + j < ends)
        assert (run.accepted[told, j] == (run.ids[told, j] == run.tokens[at[told] + j])).all()
        led &= run.accepted[:, j]


@pytest.mark.parametrize("name", load_runs())
def test_outcomes_fall_as_their_acceptance_says(name):
    run = load_runs()[name]
    there = np.arange(8) < run.draft_lens[:, None]
    leading = np.logical_and.accumulate(run.accepted, axis=1)
    behind = np.pad(~leading[:, :-1], ((0, 0), (1, 0)))
    for where in (there & ~behind, there & behind):
        p = run.acceptance[where].astype(np.float64)
        error = np.sqrt((p * (1 - p)).sum())
        # Drafts of one text at neighbouring positions are tested on the same tokens: 8 at most count as one.
        assert abs((run.accepted[where] - p).sum()) <= 4 * np.sqrt(8) * error


def test_likely_drafts_are_accepted_more_often():
    # What every selection by draft probability lives on; a swapped or shifted column would lose it.
    for run in load_runs().values():
        there = np.arange(8) < run.draft_lens[:, None]
        median = np.median(run.log_q[there])
        likely, unlikely = (run.accepted[there & where].mean() for where in (run.log_q > median, run.log_q <= median))
        assert likely > unlikely + 0.1


def test_readme_describes_the_data():
    runs = load_runs()
    text = DATA.joinpath("README.md").read_text()
    rows = re.findall(r"^\| `([\w-]+@T[\d.]+)` \|.*\| (\d+) \| ([\d,]+) \| (\.\d\d) \| (\.\d\d) \|$", text, re.M)
    assert [name for name, *_ in rows] == list(runs)
    for name, requests, positions, first, tested in rows:
        run = runs[name]
        there = np.arange(8) < run.draft_lens[:, None]
        assert (int(requests), int(positions.replace(",", ""))) == (run.num_requests, len(run.ids))
        assert float(first) == round(float(run.accepted[run.draft_lens > 0, 0].mean()), 2)
        assert float(tested) == round(float(run.accepted[there].mean()), 2)


def test_file_is_small():
    assert len(DATA.joinpath("traces.npz").read_bytes()) < 2_000_000


def same(run: Run, other: Run) -> bool:
    pairs = [(getattr(run, name), getattr(other, name)) for name in vars(run)]
    return all(np.array_equal(a, b) and getattr(a, "dtype", 0) == getattr(b, "dtype", 0) for a, b in pairs)


def test_what_is_saved_is_loaded(tmp_path):
    runs = [MADE, replace(MADE, name="other@T0.7", drawn=True, about={"model": "m", "drafter": "d"})]
    traces.save(tmp_path / "a.npz", runs)
    loaded = traces.load(tmp_path / "a.npz")
    assert list(loaded) == ["made@T0", "other@T0.7"]
    assert all(same(run, loaded[run.name]) for run in runs)
    traces.save(tmp_path / "b.npz", loaded.values())
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.npz", "b.npz"]


def test_positions_of_rows():
    assert MADE.num_rows.tolist() == [3, 0, 2]
    assert MADE.request.tolist() == [0, 0, 0, 2, 2] and MADE.generated.tolist() == [1, 2, 3, 1, 2]
    assert MADE.draft_lens.tolist() == [2, 1, 0, 1, 0]
    assert replace(MADE, limits=np.array([9, 9, 9])).draft_lens.tolist() == [2] * 5
    assert MADE.text(2) == [1, 1, 1] and head(MADE, 2).num_requests == 2


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"ids": MADE.ids[:4]}, r"made@T0, ids: expected dtype kind 'u' and \[5, 2\], got uint16 \[4, 2\]"),
        ({"tokens": MADE.tokens[1:]}, r"tokens: expected dtype kind 'u' and \[8\], got uint16 \[7\]"),
        ({"log_q": MADE.ids}, r"log_q: expected dtype kind 'f' and \[5, 2\], got uint16"),
        ({"log_q": MADE.log_q + 1}, r"log_q: expected logarithms of probabilities, got 0\.5"),
        ({"log_q": MADE.log_q * np.float32(np.nan)}, "log_q: expected logarithms of probabilities, got nan"),
        ({"acceptance": MADE.acceptance * 2}, "acceptance: expected probabilities, got others"),
        ({"limits": MADE.limits - 1}, "num_tokens: expected 1 up to the request's limit, got others"),
    ],
)
def test_a_run_that_does_not_hold_together_is_refused(changed, text):
    with pytest.raises(ValueError, match=text):
        replace(MADE, **changed)


def test_other_files_are_refused(tmp_path):
    path = tmp_path / "x.npz"
    with pytest.raises(FileNotFoundError):
        traces.load(path)
    path.write_text("not a trace")
    with pytest.raises(ValueError, match=r"x\.npz: expected traces of tetris-decode record, got: "):
        traces.load(path)
    np.savez(path, other=np.arange(3))
    with pytest.raises(ValueError, match=r"got: no run in it"):
        traces.load(path)
    np.savez(path, **{"a@T0/head": np.array('{"about": {}, "drawn": false, "prompts": []}')})
    with pytest.raises(ValueError, match=r"got none of 'a@T0/ids'"):
        traces.load(path)
    np.save(path.open("wb"), np.array([{}], dtype=object))
    with pytest.raises(ValueError, match=r"got: .*[Pp]ickle"):
        traces.load(path)
