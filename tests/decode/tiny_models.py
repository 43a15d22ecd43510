"""Random models of a few thousand weights, and copies with noise as drafters, in float32."""

from __future__ import annotations

import copy
from functools import cache

import torch
from transformers import (
    GPTNeoXConfig,
    GPTNeoXForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    Qwen3Config,
    Qwen3ForCausalLM,
)

VOCAB_SIZE = 97
SHAPE = {
    "vocab_size": VOCAB_SIZE,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
    # Wide enough that the argmax is not a matter of the last bits.
    "initializer_range": 0.2,
}
ARCHITECTURES = {
    # Grouped-query attention, as most models have it.
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, num_key_value_heads=2)),
    # Normalised queries and keys, a head_dim of its own.
    "qwen3": lambda: Qwen3ForCausalLM(Qwen3Config(**SHAPE, num_key_value_heads=2, head_dim=24)),
    # Attention beside the MLP, fused projections, partly rotated heads, biases.
    "gpt-neox": lambda: GPTNeoXForCausalLM(GPTNeoXConfig(**SHAPE)),
}


@cache
def target(architecture: str = "llama") -> PreTrainedModel:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ARCHITECTURES[architecture]().eval()


@cache
def noisy_copy(architecture: str = "llama", noise: float = 0.05) -> PreTrainedModel:
    """The target with `noise` standard deviations of each weight added to it."""
    model = copy.deepcopy(target(architecture))
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for weight in model.parameters():
            if weight.numel() > 1:
                weight += noise * weight.std() * torch.randn_like(weight)
    return model


def random_prompts(*lens: int, seed: int = 2) -> list[list[int]]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(VOCAB_SIZE, (n,), generator=generator).tolist() for n in lens]


@cache
def _plain(architecture: str, prompt: tuple[int, ...], max_new_tokens: int, eos: int | None) -> list[int]:
    ids = torch.tensor([prompt])
    # Without a mask it takes every pad token of the prompt for padding.
    options = {"attention_mask": torch.ones_like(ids), "pad_token_id": 0, "eos_token_id": eos, "do_sample": False}
    output = target(architecture).generate(ids, max_new_tokens=max_new_tokens, **options)
    return output[0, len(prompt) :].tolist()


def transformers_generate(
    prompts: list[list[int]], max_new_tokens: int, *, architecture: str = "llama", eos: int | None = None
) -> list[list[int]]:
    """What transformers' own generate says, one request at a time."""
    return [_plain(architecture, tuple(prompt), max_new_tokens, eos) for prompt in prompts]


# Short ones and a single token; what they are continued with is computed once for all tests.
PROMPTS = random_prompts(5, 1, 9, 20, 3)
NEW_TOKENS = 24
