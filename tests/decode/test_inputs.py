"""Models from local directories, which drafter goes with them, and what is refused."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from local_models import TEXT, save
from tiny_models import SHAPE, VOCAB_SIZE, noisy_copy, target
from transformers import LlamaConfig, LlamaForCausalLM, T5Config

from tetris_decode import smollm2
from tetris_decode.draft_model import ModelDrafter
from tetris_decode.inputs import Options, load_inputs
from tetris_decode.ngram import NgramDrafter

SMALL = {"dtype": "float32", "max_new_tokens": 8}


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> Path:
    """target, draft: the same tokens. plain: without a chat template. Two prompts."""
    home = tmp_path_factory.mktemp("models")
    save(home / "target")
    save(home / "draft", noisy_copy())
    save(home / "plain", chat_template=None)
    lines = [{"prompt": "the batch"}, {"text": "what the drafter drafts"}]
    (home / "prompts.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return home


def load(home: Path, **options):
    given = {"model": home / "target", "prompts": home / "prompts.jsonl"} | SMALL | options
    return load_inputs(Options(**given))


def test_a_directory_is_loaded_as_it_was_saved(home):
    inputs = load(home)
    chat = inputs.chat
    assert chat.name == "target" and not chat.model.training and chat.model.dtype == torch.float32
    weights = target().state_dict()
    assert all(torch.equal(weight, weights[name]) for name, weight in chat.model.state_dict().items())
    assert chat.eos_token_ids == (2,)
    assert inputs.encoded[0] == chat.tokenizer("user: the batch the ", add_special_tokens=False)["input_ids"]
    assert chat.decode([*inputs.encoded[0], 2]) == "user: the batch the ", "special tokens are no text"
    assert [prompt.name for prompt in inputs.prompts] == ["prompts.jsonl:1", "prompts.jsonl:2"]


def test_a_dtype_and_a_number_of_prompts(home):
    inputs = load(home, dtype="bfloat16", requests=1)
    assert inputs.chat.model.dtype == torch.bfloat16 and len(inputs.encoded) == 1


def test_without_a_chat_template_the_text_is_encoded(home):
    inputs = load(home, model=home / "plain")
    assert inputs.encoded[0] == inputs.chat.tokenizer("the batch")["input_ids"]


def test_ends_of_a_text_are_the_models_and_the_tokenizers(home, tmp_path):
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    model.generation_config.eos_token_id = [7, 5]
    assert load(home, model=save(tmp_path / "ends", model)).chat.eos_token_ids == (2, 5, 7)


def test_the_drafter_of_a_model_of_your_own(home):
    inputs = load(home)
    assert inputs.drafter_name == "own-ngram"
    assert isinstance(inputs.drafter, NgramDrafter) and inputs.drafter.vocab_size == VOCAB_SIZE
    assert len(inputs.drafter.table.counts) == 0


def test_a_draft_model_drafts(home):
    inputs = load(home, draft=home / "draft")
    assert inputs.drafter_name == "draft" and isinstance(inputs.drafter, ModelDrafter)
    expected = noisy_copy().state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in inputs.drafter.model.state_dict().items())


def test_chosen_layers_are_skipped(home):
    inputs = load(home, drafter="layer-skip", skip_layers="0,2")
    assert isinstance(inputs.drafter, ModelDrafter)
    assert inputs.drafter.model.config.num_hidden_layers == 2
    assert inputs.chat.model.config.num_hidden_layers == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"model": "meta-llama/Llama-3.1-8B"},
            "model: expected a local directory, as nothing is downloaded, got {home}/meta-llama/Llama-3.1-8B, which",
        ),
        ({"model": "."}, "model: expected a directory with a model's config.json, got {home} without"),
        ({"draft": "gone"}, "draft: expected a local directory, as nothing is downloaded, got {home}/gone, which is"),
        (
            {"drafter": "ngram"},
            "drafter: expected own-ngram, layer-skip or a draft model for a model of your own, as the table of ngram "
            "was counted for SmolLM2-135M-Instruct, got ngram",
        ),
        ({"draft": "draft", "drafter": "own-ngram"}, "drafter: expected none beside a draft model, got own-ngram"),
        ({"drafter": "layer-skip"}, "skip-layers: expected the layers that layer-skip leaves out, such as 4,14, got"),
        ({"skip_layers": "1"}, "skip-layers: expected the drafter layer-skip, got own-ngram"),
        ({"drafter": "layer-skip", "skip_layers": "a,b"}, "skip-layers: expected numbers, such as 4,14, got a,b"),
        ({"drafter": "layer-skip", "skip_layers": "9"}, "skipped: expected some of layers 0 to 3, got [9]"),
        ({"device": "abacus"}, "device: expected one that torch can use here, got abacus: "),
        ({"prompts": "gone.jsonl"}, "prompts: expected a file of JSON lines in UTF-8, got {home}/gone.jsonl: "),
        (
            {"max_new_tokens": 1020},
            "prompts: expected at most 1024 tokens, the positions of target, got 9 in prompts.jsonl:1 and 1020 ",
        ),
    ],
)
def test_wrong_options_are_refused(home, options, message):
    in_home = {key: home / options[key] for key in ("model", "draft", "prompts") if key in options}
    with pytest.raises(ValueError, match=f"^{re.escape(message.format(home=home))}"):
        load(home, **options | in_home)


def test_a_draft_model_needs_room_too(home, tmp_path):
    short = LlamaForCausalLM(LlamaConfig(**SHAPE | {"max_position_embeddings": 16}))
    save(tmp_path / "short", short)
    message = "prompts: expected at most 16 tokens, the positions of short, got 9 in prompts.jsonl:1 and 8 new ones"
    with pytest.raises(ValueError, match=message):
        load(home, draft=tmp_path / "short")


def test_messages_need_a_chat_template(home, tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"messages": [{"role": "user", "content": "the batch"}]}')
    assert load(home, prompts=path).encoded == [load(home).encoded[0]]
    message = "prompts: expected texts, as plain has no chat template, got messages"
    with pytest.raises(ValueError, match=message):
        load(home, model=home / "plain", prompts=path)


def test_a_prompt_of_no_token_is_refused(home, tmp_path):
    path = tmp_path / "m.jsonl"
    path.write_text('{"text": "the batch"}')
    inputs = load(home, model=home / "plain", prompts=path)
    with pytest.raises(ValueError, match="prompts: expected at least one token each, got none of ''"):
        inputs.chat.encode("")


def test_a_directory_without_a_tokenizer_is_refused(home, tmp_path):
    target().save_pretrained(tmp_path)
    message = f"model: expected a tokenizer in {tmp_path}, got an error of transformers: "
    with pytest.raises(ValueError, match=re.escape(message)):
        load(home, model=tmp_path)


@pytest.mark.parametrize("content", [None, b"xx"])
def test_a_directory_without_whole_weights_is_refused(home, tmp_path, content):
    path = save(tmp_path / "m")
    (path / "model.safetensors").unlink()
    if content:
        (path / "model.safetensors").write_bytes(content)
    message = f"model: expected weights in {path}, got an error of transformers: "
    with pytest.raises(ValueError, match=re.escape(message)):
        load(home, model=path)


@pytest.mark.parametrize("config", ["{", '{"model_type": "frob"}'])
def test_a_broken_configuration_is_refused(home, tmp_path, config):
    (tmp_path / "config.json").write_text(config)
    message = f"model: expected a configuration in {tmp_path}, got an error of transformers: "
    with pytest.raises(ValueError, match=re.escape(message)):
        load(home, model=tmp_path)


def test_code_of_a_directory_is_not_run(home, tmp_path):
    auto = {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "frob", "auto_map": auto}))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(ValueError, match=r"model: expected a configuration in .* custom code"):
        load(home, model=tmp_path)
    assert not (tmp_path / "ran").exists()


def test_another_kind_of_model_is_refused(home, tmp_path):
    T5Config().save_pretrained(tmp_path)
    with pytest.raises(
        ValueError, match=f"model: expected a causal language model, got t5 in {re.escape(str(tmp_path))}"
    ):
        load(home, model=tmp_path)


def test_a_draft_of_another_tokenizer_is_refused_by_the_first_difference(home, tmp_path):
    draft = save(tmp_path / "other", seed=TEXT.upper())
    message = r"draft: expected the target's tokenizer, whose token 3 is ',', got '\d|.'"
    with pytest.raises(ValueError, match=message):
        load(home, draft=draft)


def test_a_draft_of_fewer_tokens_is_refused(home, tmp_path):
    draft = save(tmp_path / "fewer", seed="the target")
    with pytest.raises(ValueError, match=r"draft: expected the target's tokenizer, whose token \d+ is '.+', got "):
        load(home, draft=draft)


def test_a_draft_of_other_padding_is_refused(home, tmp_path):
    padded = LlamaForCausalLM(LlamaConfig(**SHAPE | {"vocab_size": 128}))
    message = f"draft: expected {VOCAB_SIZE} logits a token, as the target has, padding too, got 128"
    with pytest.raises(ValueError, match=message):
        load(home, draft=save(tmp_path / "padded", padded))


def test_smollm2_is_the_default(home, monkeypatch):
    def load_smollm2(*, dtype, device):
        raise ValueError(f"x.gguf: expected SHA-256 a, got b, {dtype} {device}")

    monkeypatch.setattr(smollm2, "load", load_smollm2)
    with pytest.raises(ValueError, match=r"x\.gguf: expected SHA-256 a, got b, torch\.float32 cpu"):
        load(home, model=None)
