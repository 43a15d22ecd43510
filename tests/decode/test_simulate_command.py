"""`tetris-decode simulate`: what is printed, as text and as JSON, and what is refused."""

from __future__ import annotations

import json
import re

import pytest
import test_cli
from made_runs import head

from tetris_decode import traces
from tetris_decode.commands import simulate as command
from tetris_decode.roofline import SYSTEMS
from tetris_decode.traces import load_runs
from tetris_kernels import CostTable


def invoke(*arguments: str) -> tuple[int, str]:
    return test_cli.invoke("simulate", *arguments)


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> list[str]:
    """A file of two runs of a few requests, and a few requests of them."""
    path = tmp_path_factory.mktemp("traces") / "small.npz"
    traces.save(path, [head(load_runs()[name], 6) for name in ("ngram@T0", "layer-skip@T0.7")])
    return ["--trace", str(path), "--batch-size", "4", "--requests", "8", "--resamples", "2", "--system", "llama-70b"]


def test_tables(small):
    code, output = invoke(*small, "--batch-size", "8")
    assert code == 0
    assert max(map(len, output.splitlines())) <= 100
    flat = re.sub(r"\s+", " ", output)
    assert "llama-70b: a model, nothing measured. 2 x H100 SXM" in flat
    assert "8 requests, all there from the beginning; k = 1 to 6" in flat
    for title in ("ngram@T0, llama-70b, 4 requests at a time", "layer-skip@T0.7, llama-70b, 8 requests at a time"):
        assert title in output
    for policy in ("no speculation", "fixed k=", "DSD", "threshold p", "TETRIS k", "oracle k"):
        assert len(re.findall(rf"^ *{policy}", output, re.M)) >= 4
    gains = r"^ *(?:ngram|layer-skip)@T\S+ +llama-70b +[48] +[123] ( *[-+][\d.]*){6} *$"
    assert len(re.findall(gains, output, re.M)) == 12
    assert "up to 5.25 % more throughput" in flat and "agrees" in flat
    assert "Drafts of layer-skip@T0.7 were drawn" in flat


def test_json_says_the_same(small):
    code, output = invoke(*small, "--run", "ngram@T0", "--system", "vicuna-33b", "--json")
    document = json.loads(output)
    assert code == 0 and document.keys() == {"runs", "costs", "contrasts", "settings", "findings"}
    keys = [SYSTEMS[name].key(4) for name in ("llama-70b", "vicuna-33b")]
    assert [table["key"] for table in document["costs"]] == keys
    assert [setting["system"] for setting in document["settings"]] == ["llama-70b", "vicuna-33b"]
    setting = document["settings"][0]
    assert (setting["run"], setting["batch_size"], len(setting["points"])) == ("ngram@T0", 4, 45)
    assert setting["contrasts"].keys() == document["contrasts"].keys()
    assert document["runs"]["ngram@T0"]["drawn"] is False and len(document["findings"]) == 8


def test_costs_of_a_file(small, tmp_path):
    CostTable({"device": "here"}, (1, 100), (1.0, 2.0), (0.0,) * 9).save(tmp_path / "costs.json")
    code, output = invoke(*small, "--run", "ngram@T0", "--costs", str(tmp_path / "costs.json"))
    assert code == 0 and "costs: measured, " in output and "nothing measured" not in output
    assert "ngram@T0, costs, 4 requests at a time" in output


def test_theorem_2():
    code, output = invoke("--theorem-2", "--instances", "2")
    assert code == 0 and max(map(len, output.splitlines())) <= 100
    flat = re.sub(r"\s+", " ", output)
    assert len(re.findall(r"[012] of 2 ", flat)) == 8
    assert "By expected tokens in a number of steps, greedy was optimal in every instance" in flat
    document = json.loads(invoke("--theorem-2", "--instances", "2", "--json")[1])
    assert [loss["with_loss"] for loss in document["losses"] if loss["objective"] == "tokens"][:2] == [0, 0]


@pytest.mark.parametrize("complete", [0, 1])
def test_interrupted(small, tmp_path, monkeypatch, complete):
    study, done = command.study, []

    def interrupted(*arguments, **options):
        if len(done) == complete:
            raise KeyboardInterrupt
        done.append(None)
        return study(*arguments, **options)

    monkeypatch.setattr(command, "study", interrupted)
    out = tmp_path / "part.json"
    code, output = invoke(*small, "--out", str(out))
    assert code == 130 and out.exists() == bool(complete)
    if complete:
        assert f"interrupted: what was done is in {out}" in output
        assert [setting["run"] for setting in json.loads(out.read_text())["settings"]] == ["ngram@T0"]


def test_a_file_that_is_not_there():
    code, output = invoke("--trace", "nowhere.npz")
    assert code == 2 and "No such file or directory: 'nowhere.npz'" in output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "gpt"], r"run: expected one of ngram@T0, .*layer-skip@T0\.7, got gpt"),
        (["--costs", "README.md"], r"README\.md: expected a cost table in JSON"),
        (["--trace", "README.md"], r"README\.md: expected traces of tetris-decode record"),
        (["--system", "tpu"], "Invalid value for '--system'"),
        (["--batch-size", "0"], "Invalid value for '--batch-size'"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(arguments, message):
    code, output = invoke(*arguments)
    assert code == 2
    assert re.search(message, output)
