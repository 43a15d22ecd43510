"""`tetris-decode record`, with tiny models: what is in the file, what Ctrl-C leaves, what is refused."""

from __future__ import annotations

import json

import pytest
from local_models import save
from test_cli import invoke
from tiny_models import noisy_copy

from tetris_decode import traces
from tetris_decode.record import Recorder

TEXTS = ["the batch", "what the drafter drafts", "one budget", "all of its requests", "verifies"]


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> list[str]:
    """Options: a target and five prompts in files."""
    home = tmp_path_factory.mktemp("models")
    (home / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": text}) for text in TEXTS))
    named = {"model": save(home / "target"), "prompts": home / "prompts.jsonl", "dtype": "float32"}
    return [word for name, value in named.items() for word in (f"--{name}", str(value))]


def test_runs_are_added_to_the_file(local, tmp_path):
    out = tmp_path / "traces.npz"
    options = ["record", *local, "--out", str(out), "--max-new-tokens", "6", "--batch-size", "2"]
    code, output = invoke(*options)
    assert code == 0, output
    assert f"own-ngram@T0: 5 requests, 25 positions, 50 drafts, in {out}" in output
    runs = traces.load(out)
    assert list(runs) == ["own-ngram@T0", "own-ngram@T0.7"]
    run = runs["own-ngram@T0.7"]
    assert (run.num_requests, run.num_drafts, run.drawn) == (5, 8, False)
    assert run.prompts == tuple(f"prompts.jsonl:{line}" for line in range(1, 6))
    assert (
        run.about.items()
        >= {
            "model": "target",
            "drafter": "own-ngram",
            "prompts": "prompts.jsonl",
            "dtype": "float32",
            "temperature": "0.7",
        }.items()
    )

    code, output = invoke(*options, "--drafter", "layer-skip", "--skip-layers", "2", "--temperature", "0.5")
    assert code == 0, output
    assert list(traces.load(out)) == ["own-ngram@T0", "own-ngram@T0.7", "layer-skip@T0.5"]
    assert traces.load(out)["layer-skip@T0.5"].drawn


def test_a_draft_model_records_what_the_simulator_reads(local, tmp_path):
    draft, out = save(tmp_path / "draft", noisy_copy()), tmp_path / "traces.npz"
    options = ["--out", str(out), "--max-new-tokens", "16", "--temperature", "0", "--draft", str(draft)]
    assert invoke("record", *local, *options)[0] == 0
    code, output = invoke("simulate", "--trace", str(out), "--batch-size", "2", "--requests", "9", "--resamples", "2")
    assert code == 0 and "draft@T0, vicuna-33b, 2 requests at a time" in output


@pytest.mark.parametrize(("steps", "saved"), [(7, True), (1, True), (0, False)])
def test_interrupted(local, tmp_path, monkeypatch, steps, saved):
    step, done = Recorder.step, []

    def interrupted(recorder):
        if len(done) == steps:
            raise KeyboardInterrupt
        done.append(None)
        return step(recorder)

    monkeypatch.setattr(Recorder, "step", interrupted)
    out = tmp_path / "traces.npz"
    code, output = invoke("record", *local, "--out", str(out), "--max-new-tokens", "6", "--batch-size", "2")
    assert code == 130 and out.exists() == saved
    if not saved:
        assert "interrupted: nothing was done yet" in output
        return
    assert f"interrupted: what was done is in {out}" in output
    [run] = traces.load(out).values()
    assert run.num_tokens.tolist() == ([6, 6, 3, 3] if steps == 7 else [2, 2])


def test_an_interrupted_run_leaves_the_complete_one(local, tmp_path, monkeypatch):
    out = tmp_path / "traces.npz"
    options = ["--out", str(out), "--max-new-tokens", "6", "--temperature", "0"]
    assert invoke("record", *local, *options)[0] == 0
    [complete] = traces.load(out).values()
    step, done = Recorder.step, []

    def interrupted(recorder):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(None)
        return step(recorder)

    monkeypatch.setattr(Recorder, "step", interrupted)
    assert invoke("record", *local, *options)[0] == 130
    runs = traces.load(out)
    assert list(runs) == [complete.name, f"{complete.name} (partial)"]
    assert runs[complete.name].num_tokens.tolist() == complete.num_tokens.tolist()
    assert runs[f"{complete.name} (partial)"].num_tokens.tolist() < complete.num_tokens.tolist()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "nowhere/traces.npz"], "out: expected a file in a directory that exists, got nowhere/traces.npz"),
        (["--out", "README.md"], "README.md: expected traces of tetris-decode record, got"),
        (["--out", "x.npz", "--drafter", "ngram"], "drafter: expected own-ngram, layer-skip or a draft model"),
        (["--out", "x.npz", "--temperature", "-1"], "Invalid value for '--temperature'"),
        ([], "Missing option '--out'"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(local, options, message):
    code, output = invoke("record", *local, *options)
    assert code == 2 and message in output
