"""Checkpoints of a few hundred thousand weights, made on the spot: a target, drafters that agree with it often but not
always, and a pair of four tokens whose law of whole texts is known."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

VOCABULARY = 512
END = VOCABULARY - 1
SHAPE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "head_dim": 64,
    "max_position_embeddings": 512,
    "tie_word_embeddings": False,
    "bos_token_id": None,
    "pad_token_id": None,
}


def tokenizer() -> PreTrainedTokenizerFast:
    trained = ByteLevelBPETokenizer()
    text = ["Which draft tokens of a batch to verify in speculative decoding: the most promising ones."]
    trained.train_from_iterator(text * 9, vocab_size=VOCABULARY, min_frequency=1, show_progress=False)
    # All bytes are tokens; what is missing to the size is filled up.
    trained.add_tokens([f"<{i}>" for i in range(END - trained.get_vocab_size())])
    return PreTrainedTokenizerFast(tokenizer_object=trained._tokenizer, eos_token="<end>")


def save(model: LlamaForCausalLM, folder: Path, words: PreTrainedTokenizerFast | None = None) -> str:
    model.save_pretrained(folder)
    if words is not None:
        words.save_pretrained(folder)
    return str(folder)


def save_eagle(target: LlamaForCausalLM, folder: Path) -> str:
    """One layer that adds nothing, over the embedding of the last token; embeddings and head are the target's."""
    config = copy.deepcopy(target.config)
    config.num_hidden_layers = 1
    config.save_pretrained(folder)
    weights = {
        f"layers.0.{name}": weight * (0 if "o_proj" in name or "down_proj" in name else 1)
        for name, weight in target.model.layers[0].state_dict().items()
        if "input_layernorm" not in name
    }
    weights["fc.weight"] = torch.eye(128, 256)
    save_file({name: weight.contiguous() for name, weight in weights.items()}, folder / "model.safetensors")
    return str(folder)


@torch.no_grad()
def make_pair(folder: Path) -> dict[str, str]:
    """Folders of "target", "draft_model" and "eagle"."""
    torch.manual_seed(0)
    target = (
        LlamaForCausalLM(LlamaConfig(vocab_size=VOCABULARY, eos_token_id=END, initializer_range=0.2, **SHAPE))
        .float()
        .eval()
    )
    # What the last token is decides more than the text before it, so that an EAGLE drafter without training is right
    # now and then, and texts come back to what they said.
    target.model.embed_tokens.weight *= 5
    target.lm_head.weight[48:] *= 0.4
    for layer in target.model.layers:
        layer.self_attn.o_proj.weight *= 0.08
        layer.mlp.down_proj.weight *= 0.03
    drafter = copy.deepcopy(target)
    for weight in drafter.parameters():
        if weight.dim() > 1:
            weight += 0.15 * weight.std() * torch.randn_like(weight)
    words = tokenizer()
    return {
        "target": save(target, folder / "target", words),
        "draft_model": save(drafter, folder / "draft_model", words),
        "eagle": save_eagle(target, folder / "eagle"),
    }


LAW_VOCABULARY = 4
LAW_LENGTH = 4  # tokens whose joint law is compared: 256 texts
PROMPT = [1, 3, 2]


@torch.no_grad()
def make_law_pair(folder: Path) -> tuple[dict[str, str], torch.Tensor]:
    """Folders of "target", "draft_model" and "eagle"; [4 ** 4] float64, the law of the target's texts after PROMPT."""
    torch.manual_seed(3)
    config = LlamaConfig(vocab_size=LAW_VOCABULARY, eos_token_id=None, initializer_range=0.2, **SHAPE)
    target = LlamaForCausalLM(config).float().eval()
    drafter = copy.deepcopy(target)
    # As a target that is sure often, and a drafter that is not of the same opinion.
    target.lm_head.weight *= 0.8
    drafter.lm_head.weight += 0.1 * torch.randn_like(drafter.lm_head.weight)
    law = torch.ones(1, dtype=torch.float64)
    for length in range(LAW_LENGTH):
        texts = [[*PROMPT, *text] for text in itertools.product(range(LAW_VOCABULARY), repeat=length)]
        logits = target(torch.tensor(texts), use_cache=False).logits[:, -1]
        law = (law[:, None] * logits.double().softmax(-1)).flatten()
    folders = {
        "target": save(target, folder / "law"),
        "draft_model": save(drafter, folder / "law_draft"),
        "eagle": save_eagle(target, folder / "law_eagle"),
    }
    return folders, law
