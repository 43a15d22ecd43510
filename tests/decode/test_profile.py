"""`tetris-decode profile`: measured costs of a tiny model, their smoothing, and the command."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from local_models import save
from test_cli import invoke
from test_plot import size_of_png
from tiny_models import noisy_copy, random_prompts, target

from tetris_decode.draft_model import ModelDrafter
from tetris_decode.profiling import default_tokens, isotonic, measure_costs, smooth, typical
from tetris_kernels import CostTable

PROMPTS = random_prompts(5, 1, 9, 20, 3)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([1.0, 2.0, 3.0], (1.0, 2.0, 3.0)),
        ([3.0, 1.0], (2.0, 2.0)),
        ([1.0, 4.0, 2.0, 3.0, 9.0], (1.0, 3.0, 3.0, 3.0, 9.0)),
        ([5.0, 4.0, 3.0], (4.0, 4.0, 4.0)),
        ([2.0], (2.0,)),
        ([], ()),
        ([1.0, 1.0], (1.0, 1.0)),
    ],
)
def test_isotonic_by_hand(values, expected):
    assert isotonic(values) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(30))
def test_isotonic_is_the_nearest_sequence(seed):
    """Against the min-max formula: the largest over starts of the least over ends of means."""
    rng = random.Random(seed)
    values = [rng.gauss(0, 1) + 0.2 * i for i in range(rng.randint(1, 12))]
    count = len(values)
    expected = [
        max(min(float(np.mean(values[start : end + 1])) for end in range(i, count)) for start in range(i + 1))
        for i in range(count)
    ]
    assert isotonic(values) == pytest.approx(expected)


def test_typical_times_do_not_depend_on_the_speed_of_their_rounds():
    rng = np.random.default_rng(0)
    true = np.array([0.08, 0.09, 0.1, 0.14])
    # The speed wanders by a third of itself; single steps scatter by 5 %, and one in ten is interrupted.
    speed = np.exp(0.3 * np.sin(np.arange(12) / 2))
    errors, plain = [], []
    for _ in range(200):
        times = true[:, None] * speed * np.exp(0.05 * rng.standard_normal((4, 12)))
        times *= np.where(rng.random((4, 12)) < 0.1, 3.0, 1.0)
        for found, into in ((typical(times), errors), (np.median(times, axis=1), plain)):
            into.append(abs(np.log(found[1:] / found[:-1] / (true[1:] / true[:-1]))).mean())
    assert np.mean(errors) < 0.6 * np.mean(plain)
    assert typical(true[:, None] * np.ones(5)) == pytest.approx(true)
    # The level is that of the median round.
    assert typical(true[:, None] * np.array([1.0, 2.0, 4.0])) == pytest.approx(2 * true)


def test_smooth_keeps_straight_lines_and_short_curves():
    line = np.array([1.0, 1.5, 3.0, 4.5])
    assert smooth([2, 3, 6, 9], line) == pytest.approx(line)
    for few in ([], [3.0], [3.0, 1.0]):
        assert smooth(range(len(few)), np.array(few)).tolist() == few


def test_smooth_by_hand():
    """The third point, alone, is off by 3e-4: its own line has a third of that, those of its neighbours as much."""
    times = np.array([1.0, 1.0, 1.0003, 1.0, 1.0])
    expected = [1.0 - 0.5e-4, 1.0001, 1.0001, 1.0001, 1.0 - 0.5e-4]
    assert smooth(range(1, 6), times) == pytest.approx(np.clip(expected, 1.0, 2.0), abs=1e-7)


@pytest.mark.parametrize("seed", range(20))
def test_smooth_stays_among_its_neighbours(seed):
    rng = np.random.default_rng(seed)
    tokens, times = np.cumsum(rng.integers(1, 9, 8)).tolist(), np.exp(2 * rng.standard_normal(8))
    for i, found in enumerate(smooth(tokens, times)):
        near = times[max(i - 1 - (i == 7), 0) : i + 2 + (i == 0)]
        assert near.min() <= found <= near.max()


def test_smooth_takes_noise_from_a_curve():
    rng = np.random.default_rng(0)
    tokens = [20, 24, 28, 32, 40, 48, 64, 80]
    true = 0.1 + 2e-3 * np.array(tokens) ** 1.1
    noisy = true * np.exp(0.04 * rng.standard_normal((200, 8)))
    errors, raw = (
        np.sqrt(np.mean((times / true - 1) ** 2)) for times in (np.array([smooth(tokens, t) for t in noisy]), noisy)
    )
    assert errors < 0.75 * raw


def test_only_curves_are_smoothed(monkeypatch):
    """And not their first point, where nobody has drafts."""
    times = np.array([1.0, 2.0, 5.0, 6.0])
    monkeypatch.setattr("tetris_decode.profiling.typical", lambda _: times.copy())
    found = [
        measure_costs(
            target(), PROMPTS, ModelDrafter(noisy_copy()), num_drafts=2, steps=1, tokens=tokens, staircase=staircase
        ).seconds
        for tokens, staircase in (((5, 6, 7, 8), True), ((5, 6, 7, 8), False), ((6, 7, 8, 9), False))
    ]
    assert found[0] == tuple(times)
    assert found[1] == (1.0, *smooth([6, 7, 8], times[1:]))
    assert found[2] == tuple(smooth([6, 7, 8, 9], times))


def test_default_tokens():
    assert default_tokens(16, 8) == [16, 20, 24, 28, 32, 40, 48, 64, 80]
    assert default_tokens(16, 1) == [16, 20, 24, 28, 32]
    assert default_tokens(1, 8) == [1, 2, 3, 4, 5, 7, 9]
    assert default_tokens(8, 6) == [8, 10, 12, 14, 16, 20, 24, 32, 40, 56]


def test_measured_costs():
    key, steps = {"model": "tiny"}, []
    table = measure_costs(
        target(),
        PROMPTS,
        ModelDrafter(noisy_copy()),
        num_drafts=4,
        steps=2,
        tokens=[7, 25, 5, 7],
        staircase=True,
        key=key,
        on_step=lambda: steps.append(1),
    )
    assert table.tokens == (5, 7, 25) and table.key == key and table.staircase
    assert len(steps) == 3 * 3
    assert table.seconds[0] > 0 and len(table.draft_seconds) == 5 and table.draft_seconds[0] == 0
    assert 0 < table.draft_seconds[1] <= table.draft_seconds[4]


@pytest.mark.parametrize("tokens", [[4, 9], [9, 26], []])
def test_tokens_that_no_batch_has(tokens):
    with pytest.raises(ValueError, match="tokens: expected numbers from 5 to 25, got"):
        measure_costs(target(), PROMPTS, ModelDrafter(noisy_copy()), num_drafts=4, steps=1, tokens=tokens)


@pytest.fixture
def arguments(tmp_path) -> list[str]:
    model = save(tmp_path / "model")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a b c"}\n{"prompt": "c b"}\n')
    options = ["--batch-size", "3", "--num-drafts", "2", "--steps", "2", "--dtype", "float32"]
    return ["profile", "--model", str(model), "--prompts", str(prompts), *options]


def test_the_command(tmp_path, arguments):
    out, plot = tmp_path / "costs.json", tmp_path / "costs.png"
    code, output = invoke(*arguments, "--out", str(out), "--plot", str(plot))
    assert code == 0, output
    assert max(map(len, output.splitlines())) <= 100
    table = CostTable.load(out)
    assert table.tokens == (3, 4, 5, 6, 7, 9)
    assert not table.staircase and len(table.draft_seconds) == 3
    assert {"model", "dtype", "drafter", "device", "batch_size", "temperature"} == set(table.key)
    assert table.key["dtype"] == "float32" and table.key["batch_size"] == "3"
    assert f"Written to {out}." in " ".join(output.split()) and "ms per step" in output
    assert size_of_png(plot)[0] == 1600


def test_json_and_buckets(tmp_path, arguments):
    out = tmp_path / "costs.json"
    code, output = invoke(*arguments, "--out", str(out), "--tokens", "4", "--tokens", "9", "--staircase", "--json")
    assert code == 0, output
    assert json.loads(output) == json.loads(out.read_text())
    assert CostTable.load(out).staircase and CostTable.load(out).tokens == (4, 9)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (["--tokens", "4"], "tokens: expected two numbers or more, got [4]"),
        (["--tokens", "2", "--tokens", "9"], "tokens: expected numbers from 3 to 9, got [2, 9]"),
        (["--staircase"], "staircase: expected --tokens, the buckets, got none"),
        (["--plot", "/nowhere/p.png"], "out: expected a file in a directory that exists, got /nowhere/p.png"),
    ],
)
def test_wrong_input(tmp_path, arguments, options, text):
    out = tmp_path / "costs.json"
    code, output = invoke(*arguments, "--out", str(out), *options)
    assert code == 2 and text in " ".join(output.split())
    assert not out.exists()
