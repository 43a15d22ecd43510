"""Ragged forwards through transformers models: the same logits as request by request."""

from __future__ import annotations

import copy

import pytest
import torch
from pieces import pieces
from tiny_models import ARCHITECTURES, SHAPE, VOCAB_SIZE, random_prompts, target
from transformers import (
    BloomConfig,
    BloomForCausalLM,
    DogeConfig,
    DogeForCausalLM,
    FalconH1Config,
    FalconH1ForCausalLM,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    StableLmConfig,
    StableLmForCausalLM,
)

from tetris_decode.packed import KVCache, PackedModel
from tetris_decode.ragged import Part

# Logits are of order 5 and summed in float32 over a few hundred terms in another order.
TOLERANCE = 5e-5


def padded(prompts: list[list[int]], width: int) -> torch.Tensor:
    return torch.tensor([prompt + [0] * (width - len(prompt)) for prompt in prompts])


def reference(model, prompt):
    """[len(prompt), V] logits by the model itself."""
    with torch.inference_mode():
        return model(torch.tensor([prompt])).logits[0]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@torch.inference_mode()
def test_logits_of_ragged_pieces(architecture):
    """Each request advances by another number of tokens in each forward, some by none."""
    model = target(architecture)
    prompts = random_prompts(30, 12, 21)
    packed = PackedModel(model, 3, 32)
    starts = [0, 0, 0]
    for spare, counts in enumerate(([5, 1, 0], [1, 0, 9], [20, 1, 1], [4, 10, 11])):
        logits, ran = packed.forward(pieces(prompts, starts, counts, spare))
        assert len(logits) == len(ran.request_ids) == sum(counts), "padding is not run"
        for t, (r, position) in enumerate(zip(ran.request_ids, ran.position_ids, strict=True)):
            torch.testing.assert_close(
                logits[t], reference(model, prompts[r])[position], atol=TOLERANCE, rtol=0, msg=f"{r} {position}"
            )
        starts = [start + count for start, count in zip(starts, counts, strict=True)]
    assert starts == [30, 12, 21]


@torch.inference_mode()
def test_starting_again_rejects_what_was_written():
    model = target()
    [good], [bad] = random_prompts(12), random_prompts(12, seed=9)
    packed = PackedModel(model, 1, 16)
    packed.forward(pieces([good[:6] + bad[6:]], [0], [12]))
    logits, _ = packed.forward(pieces([good], [6], [6]))
    torch.testing.assert_close(logits, reference(model, good)[6:], atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_last_only():
    model = target()
    prompts = random_prompts(7, 3, 5)
    packed = PackedModel(model, 3, 8)
    logits, _ = packed.forward(pieces(prompts, [0, 0, 0], [7, 0, 5], 4), last_only=True)
    assert logits.shape == (3, VOCAB_SIZE)
    for r in (0, 2):
        torch.testing.assert_close(logits[r], reference(model, prompts[r])[-1], atol=TOLERANCE, rtol=0)


@torch.inference_mode()
def test_reading_in_pieces():
    model = target()
    prompts = random_prompts(600, 3, 257, 256)
    lens = torch.tensor([len(prompt) for prompt in prompts])
    logits = PackedModel(model, 4, 600).read(padded(prompts, 600), torch.zeros(4).long(), lens)
    for r, prompt in enumerate(prompts):
        torch.testing.assert_close(logits[r], reference(model, prompt)[-1], atol=TOLERANCE, rtol=0)


def test_cache_writes_only_its_slots():
    cache = KVCache(2, 4)
    key = torch.randn(3, 2, 5)  # 3 heads of 2 tokens
    cache.write(0, cache.slots(torch.tensor([0, 1]), torch.tensor([1, 3]), 3), key, -key)
    keys, values = cache.read(0, Part(slice(0, 2), torch.zeros(2, 1), context=4, sees_all=True))
    assert keys.shape == (2, 3, 4, 5)
    assert torch.equal(keys[0, :, 1], key[:, 0]) and torch.equal(keys[1, :, 3], key[:, 1])
    assert torch.equal(values, -keys)
    assert keys.count_nonzero() == key.numel()
    some, _ = cache.read(0, Part(slice(1, 2), torch.zeros(1, 1), context=2, sees_all=True))
    assert torch.equal(some, keys[1:, :, :2])


def test_training_mode_is_refused():
    model = copy.deepcopy(target()).train()
    with pytest.raises(ValueError, match=r"expected evaluation mode, as after model\.eval\(\), got training mode"):
        PackedModel(model, 1, 4)


def run_once(model):
    return PackedModel(model, 1, 4).forward(pieces([[0, 0]], [0], [2]))


def test_sliding_windows_are_refused_and_the_model_is_left_alone():
    model = MistralForCausalLM(MistralConfig(**SHAPE, num_key_value_heads=2, sliding_window=8)).eval()
    before = model.config._attn_implementation
    with pytest.raises(ValueError, match="expected plain causal attention, got MistralAttention with sliding_window"):
        run_once(model)
    assert model.config._attn_implementation == before


def test_layers_that_are_no_attention_are_refused():
    config = FalconH1Config(**SHAPE, num_key_value_heads=2, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8)
    with pytest.raises(ValueError, match="expected plain causal attention in all layers, got FalconH1ForCausalLM with"):
        PackedModel(FalconH1ForCausalLM(config).eval(), 1, 4)


@pytest.mark.parametrize("rope", ["dynamic", "longrope"])
def test_rotations_that_depend_on_other_requests_are_refused(rope):
    parameters = {"rope_type": rope, "rope_theta": 1e4, "factor": 2.0}
    if rope == "longrope":
        parameters |= {"short_factor": [1.0] * 8, "long_factor": [2.0] * 8, "original_max_position_embeddings": 16}
    config = LlamaConfig(**SHAPE, num_key_value_heads=2, rope_parameters=parameters)
    with pytest.raises(ValueError, match=f"expected fixed rotary frequencies, got LlamaForCausalLM with {rope} ones"):
        PackedModel(LlamaForCausalLM(config).eval(), 1, 4)


def test_a_mask_of_the_model_is_refused():
    """Doge makes one of its own, which leaves out keys."""
    model = DogeForCausalLM(DogeConfig(**SHAPE, num_key_value_heads=2, keep_window_size=2)).eval()
    with pytest.raises(ValueError, match="expected plain causal attention, got DogeAttention with attention_mask"):
        run_once(model)


def test_keyword_arguments_that_do_not_arrive():
    model = StableLmForCausalLM(StableLmConfig(**SHAPE, num_key_value_heads=2)).eval()
    with pytest.raises(ValueError, match="to hand keyword arguments to attention, got none in StableLmAttention"):
        run_once(model)


def test_attention_of_its_own_is_refused():
    """BLOOM computes attention itself, with biases for positions."""
    model = BloomForCausalLM(BloomConfig(vocab_size=VOCAB_SIZE, hidden_size=32, n_layer=2, n_head=2)).eval()
    text = r"through transformers\.AttentionInterface once in each of 2 layers, got 0 calls from 0 in Bloom"
    with pytest.raises(ValueError, match=text):
        run_once(model)
