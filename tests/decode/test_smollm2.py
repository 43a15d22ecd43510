"""The real model. What needs its weights is run by `make test-model`."""

from __future__ import annotations

import os
import re

import pytest
import torch

from tetris_decode import prompts, smollm2
from tetris_decode.chat_model import ChatModel
from tetris_decode.decoder import generate
from tetris_decode.live import differences
from tetris_decode.policies import NO_SPECULATION, FixedLength, Tetris

with_model = pytest.mark.skipif(os.environ.get("TETRIS_TEST_MODEL") != "1", reason="the real model: make test-model")
# bfloat16 has 8 significant bits; two of its logits that differ by more than a few units are no near-tie.
NEAR_TIE = 4 / 256


def test_another_file_is_refused(tmp_path):
    path = tmp_path / smollm2.FILE
    path.write_bytes(b"GGUF")
    with pytest.raises(ValueError, match=rf"expected SHA-256 {smollm2.SHA256}, got [0-9a-f]{{64}}$"):
        smollm2.verified(path)


def test_a_drafter_of_another_name_is_refused():
    text = "drafter: expected ngram, own-ngram or layer-skip, got eagle"
    with pytest.raises(ValueError, match=re.escape(text)):
        smollm2.make_drafter("eagle", ChatModel("none", None, None))


@pytest.fixture(scope="module")
def chat():
    return smollm2.load()


@with_model
def test_chat_template(chat):
    tokens = chat.encode("Hello")
    text = chat.tokenizer.decode(tokens)
    assert text.endswith("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n")
    assert text.startswith("<|im_start|>system\nYou are a helpful AI assistant named SmolLM")
    [eos] = chat.eos_token_ids
    assert chat.tokenizer.decode([eos]) == "<|im_end|>" and eos in tokens
    assert chat.decode([*tokens[-3:], eos]).strip() == "assistant", "special tokens are no text"


@with_model
@pytest.mark.parametrize("drafter", ["ngram", "own-ngram", "layer-skip"])
def test_speculation_changes_texts_only_at_near_ties(chat, drafter):
    encoded = [chat.encode(prompt.text) for prompt in prompts.evaluation()[:8]]
    plain = generate(chat.model, encoded, 32, policy=NO_SPECULATION, eos_token_id=chat.eos_token_ids)
    assert all("\ufffd" not in chat.decode(output) for output in plain.outputs)
    for policy in (FixedLength(2), Tetris(1, 8)):
        run = generate(
            chat.model,
            encoded,
            32,
            drafter=smollm2.make_drafter(drafter, chat),
            policy=policy,
            eos_token_id=chat.eos_token_ids,
        )
        found = differences(chat.model, encoded, plain.outputs, run.outputs)
        # How many depends on the processor: where one token a request takes another kernel than several, more.
        assert len(found) <= len(encoded) // 2, found
        assert all(abs(d.logit_gap) <= NEAR_TIE * abs(d.logit) for d in found), found
        assert sum(step.accepted for step in run.steps) > 0.1 * sum(step.verified for step in run.steps)


@with_model
@torch.inference_mode()
def test_the_model_says_what_it_should(chat):
    prompt = chat.encode("What is the capital of France? Answer in one word.")
    [output] = generate(chat.model, [prompt], 16, eos_token_id=chat.eos_token_ids).outputs
    assert "Paris" in chat.decode(output)
