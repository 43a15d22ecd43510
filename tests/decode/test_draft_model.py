"""Model drafters: what they propose, how little they run, and layers left out."""

from __future__ import annotations

import copy

import pytest
import torch
from tiny_models import ARCHITECTURES, VOCAB_SIZE, noisy_copy, random_prompts, target
from transformers import GPT2Config, GPT2LMHeadModel

from tetris_decode.batch import Batch
from tetris_decode.decoder import generate
from tetris_decode.draft_model import ModelDrafter, skip_layers
from tetris_decode.policies import NO_SPECULATION, FixedLength, Tetris
from tetris_decode.sampling import Sampling


@torch.inference_mode()
def check_proposal(model, batch, drafts):
    """Each draft is the model's most probable token after the drafts before it."""
    for r in range(len(batch.lens)):
        context = batch.tokens[r, : batch.lens[r]].tolist()
        for j in range(int(drafts.lens[r])):
            logprobs = model(torch.tensor([context])).logits[0, -1].log_softmax(-1)
            assert drafts.ids[r, j] == logprobs.argmax()
            assert drafts.logprobs[r, j] == pytest.approx(logprobs.max().item(), abs=1e-4)
            context.append(int(drafts.ids[r, j]))


@torch.inference_mode()
def test_proposals_while_requests_grow():
    """By accepted drafts, by others, by several tokens at once, or not at all."""
    model = noisy_copy()
    batch = Batch(random_prompts(6, 1, 11), 20, num_drafts=4)
    drafter = ModelDrafter(model)
    drafter.start(batch)
    other = torch.tensor([[9, 9, 9]] * 3)
    for grow in ([3, 1, 2], [0, 0, 0], [2, 2, 2], [1, 3, 0]):
        drafts = drafter.propose(batch, 4)
        assert drafts.lens.tolist() == batch.max_drafts.clamp(max=4).tolist()
        check_proposal(model, batch, drafts)
        # One accepted draft, then other tokens, without a proposal in between.
        batch.append(torch.where(torch.arange(3) < 1, drafts.ids[:, :3], other), torch.tensor(grow))
        batch.append(other, torch.tensor([1, 0, 0]))


@torch.inference_mode()
def test_drawn_drafts():
    """At each request's temperature, from the logits that are handed over, each with a random number of its own."""
    temperatures = [0.0, 0.5, 2.0]
    prompts, model = random_prompts(6, 1, 11), noisy_copy()
    batch = Batch(prompts, 20, num_drafts=4, sampling=Sampling(3, temperature=temperatures, seeds=[7, 8, 9]))
    drafter = ModelDrafter(model)
    drafter.start(batch)
    drafts = drafter.propose(batch, 4)
    sampling = Sampling(3, temperature=temperatures, seeds=[7, 8, 9])
    uniforms = sampling.uniforms(4)
    for j in range(4):
        rows = [torch.tensor([prompt + drafts.ids[r, :j].tolist()]) for r, prompt in enumerate(prompts)]
        logits = torch.stack([model(row).logits[0, -1] for row in rows]) / torch.tensor([[1.0], [0.5], [2.0]])
        torch.testing.assert_close(drafts.logits[:, j], logits, atol=1e-4, rtol=0)
        assert torch.equal(drafts.ids[:, j], sampling.draw(drafts.logits[:, j], uniforms[:, j]))
        expected = logits.log_softmax(-1).gather(1, drafts.ids[:, j : j + 1])[:, 0]
        torch.testing.assert_close(drafts.logprobs[:, j], expected, atol=1e-4, rtol=0)
    assert torch.equal(drafts.ids[0], drafts.logits[0].argmax(-1)), "greedy"


@torch.inference_mode()
def test_greedy_drafts_are_not_drawn():
    batch = Batch(random_prompts(6, 1), 20, num_drafts=4)
    drafter = ModelDrafter(noisy_copy())
    drafter.start(batch)
    assert drafter.propose(batch, 4).logits is None


@torch.inference_mode()
def test_near_the_end_fewer_drafts():
    batch = Batch(random_prompts(6, 3), 3, num_drafts=4)
    batch.append(torch.tensor([[5, 5], [5, 5]]), torch.tensor([2, 0]))
    drafter = ModelDrafter(target())
    drafter.start(batch)
    drafts = drafter.propose(batch, 4)
    assert drafts.lens.tolist() == [0, 2]
    assert drafts.logprobs.isneginf().tolist() == [[True] * 4, [False, False, True, True]], "no drafts, no estimates"
    check_proposal(target(), batch, drafts)


@torch.inference_mode()
def test_a_batch_without_use_for_drafts_runs_nothing(monkeypatch):
    batch = Batch(random_prompts(6, 3), 1, num_drafts=4)
    drafter = ModelDrafter(target())
    drafter.start(batch)
    monkeypatch.setattr(drafter.model, "forward", None)
    drafts = drafter.propose(batch, 4)
    assert drafts.lens.tolist() == [0, 0]


def test_only_new_tokens_are_run(monkeypatch):
    """Prompts once; then at most the two tokens that the drafter has not seen, and the drafts."""
    model = noisy_copy(noise=0)
    sizes = []
    forward = model.forward
    monkeypatch.setattr(
        model, "forward", lambda **inputs: sizes.append(inputs["input_ids"].shape[1]) or forward(**inputs)
    )
    generate(target(), random_prompts(50, 40), 11, drafter=ModelDrafter(model), policy=FixedLength(4))
    # Always right: 5 tokens a step for each of 2 requests, so one draft is not in the cache and one token is new.
    assert sizes == [90] + [2, 2, 2, 2] + [4, 2, 2, 2]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_layers_left_out(architecture):
    model = target(architecture)
    drafter = skip_layers(model, [1])
    assert drafter.config.num_hidden_layers == 3 and model.config.num_hidden_layers == 4
    assert len(model.base_model.layers) == 4
    shared = {id(weight) for weight in model.parameters()}
    assert all(id(weight) in shared for weight in drafter.parameters())

    prompts = random_prompts(5, 9)
    run = generate(model, prompts, 20, drafter=ModelDrafter(drafter), policy=Tetris(2, 4))
    assert run.outputs == generate(model, prompts, 20, policy=NO_SPECULATION).outputs
    assert sum(step.accepted for step in run.steps) > 0


@torch.inference_mode()
def test_layers_left_out_compute_what_the_others_do():
    """The same as a model made of the other layers."""
    model = target()
    other = type(model)(copy.deepcopy(model.config)).eval()
    state = {
        name.replace("layers.3.", "layers.2."): weight
        for name, weight in model.state_dict().items()
        if "layers.2." not in name
    }
    other.load_state_dict(state, strict=False)
    other.model.layers = other.model.layers[:3]
    ids = torch.tensor(random_prompts(12))
    left_out = skip_layers(model, [2])(ids, use_cache=False).logits
    other.config.num_hidden_layers = 3
    torch.testing.assert_close(left_out, other(ids, use_cache=False).logits)


def test_layers_kept_elsewhere():
    model = GPT2LMHeadModel(GPT2Config(vocab_size=VOCAB_SIZE, n_embd=32, n_layer=2, n_head=2))
    with pytest.raises(ValueError, match=r"expected decoder layers in base_model\.layers, got GPT2Model without"):
        skip_layers(model, [0])


@pytest.mark.parametrize("skipped", [[4], [-1], [0, 1, 2, 3], [0, 7]], ids=str)
def test_layers_that_are_not_there(skipped):
    with pytest.raises(ValueError, match="skipped: expected some of layers 0 to 3, got"):
        skip_layers(target(), skipped)
