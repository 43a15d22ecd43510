"""Greedy speculative decoding says what plain decoding says, whatever is drafted, selected and accepted."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tiny_models import NEW_TOKENS, PROMPTS, VOCAB_SIZE, noisy_copy, random_prompts, target, transformers_generate

from tetris_decode import packed
from tetris_decode.decoder import generate
from tetris_decode.draft_model import ModelDrafter, skip_layers
from tetris_decode.ngram import NgramDrafter
from tetris_decode.ngram_table import NgramTable
from tetris_decode.packed import KVCache
from tetris_decode.policies import NO_SPECULATION, FixedLength, Tetris, Threshold

POLICIES = {
    "none": NO_SPECULATION,
    "fixed 1": FixedLength(1),
    "fixed 4": FixedLength(4),
    "budget 0": Tetris(0, 4),
    "budget 1 in all": Tetris(0.2, 4),
    "budget 0.6": Tetris(0.6, 4),
    "budget 1": Tetris(1, 4),
    "budget 2.6": Tetris(2.6, 6),
    "all drafts": Tetris(4, 4),
    "beyond all drafts": Tetris(9, 4),
    "floors": Tetris(1, 4, min_lens=torch.tensor([0, 3, 1, 0, 9])),
    "weights": Tetris(1, 4, log_weights=torch.tensor([0.0, 5.0, -5.0, torch.nan, 1.0])),
    "floors and weights": Tetris(
        1.4, 4, min_lens=torch.tensor([1, 0, 0, 2, 0]), log_weights=torch.tensor([-3.0, 0.0, 3.0, 0.0, 0.0])
    ),
    "threshold 0": Threshold(0.0, 4),
    "threshold 0.4": Threshold(0.4, 4),
    "threshold 1": Threshold(1.0, 4),
}


def ngram_drafter() -> NgramDrafter:
    return NgramDrafter(NgramTable.count(random_prompts(400, seed=5), VOCAB_SIZE))


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize("noise", [0, 0.05, 0.5])
def test_output_is_that_of_transformers_generate(policy, noise):
    """From a drafter that is always right to one that hardly ever is."""
    run = generate(target(), PROMPTS, NEW_TOKENS, drafter=ModelDrafter(noisy_copy(noise=noise)), policy=policy)
    assert run.outputs == transformers_generate(PROMPTS, NEW_TOKENS)


@pytest.mark.parametrize("preferences", [{}, {"min_lens": "floors", "log_weights": "weights"}], ids=["plain", "both"])
@pytest.mark.parametrize("budget", range(22))
def test_every_budget(budget, preferences):
    """Of 5 requests with 4 drafts each: from none to more than all."""
    given = {name: getattr(POLICIES[key], name) for name, key in preferences.items()}
    policy = Tetris(budget / len(PROMPTS), 4, **given)
    run = generate(target(), PROMPTS, NEW_TOKENS, drafter=ModelDrafter(noisy_copy()), policy=policy)
    assert run.outputs == transformers_generate(PROMPTS, NEW_TOKENS)
    assert run.steps[0].verified == min(budget, 20)


@pytest.mark.parametrize("policy", [NO_SPECULATION, FixedLength(3), Tetris(1, 4)], ids=str)
@pytest.mark.parametrize("architecture", ["qwen3", "gpt-neox"])
def test_other_architectures(architecture, policy):
    run = generate(
        target(architecture), PROMPTS, NEW_TOKENS, drafter=ModelDrafter(noisy_copy(architecture)), policy=policy
    )
    assert run.outputs == transformers_generate(PROMPTS, NEW_TOKENS, architecture=architecture)


@pytest.mark.parametrize("policy", [FixedLength(2), Tetris(1, 8)], ids=str)
def test_ngram_drafts(policy):
    run = generate(target(), PROMPTS, NEW_TOKENS, drafter=ngram_drafter(), policy=policy)
    assert run.outputs == transformers_generate(PROMPTS, NEW_TOKENS)


@pytest.mark.parametrize("policy", [NO_SPECULATION, FixedLength(3), Tetris(1, 4)], ids=str)
def test_requests_end_at_different_times(policy):
    # A token that some requests generate early, some late, some never.
    outputs = transformers_generate(PROMPTS, NEW_TOKENS)
    eos = max(range(VOCAB_SIZE), key=lambda token: len({o.index(token) for o in outputs if token in o}))
    expected = transformers_generate(PROMPTS, NEW_TOKENS, eos=eos)
    assert len({len(output) for output in expected}) >= 3

    run = generate(target(), PROMPTS, NEW_TOKENS, drafter=ModelDrafter(noisy_copy()), policy=policy, eos_token_id=eos)
    assert run.outputs == expected
    assert [step.requests for step in run.steps] == sorted((step.requests for step in run.steps), reverse=True)
    assert sum(step.emitted for step in run.steps) == sum(map(len, expected)) - len(PROMPTS), "one came of the prompt"


@pytest.mark.parametrize("policy", [NO_SPECULATION, Tetris(2, 4)], ids=str)
def test_one_request(policy):
    prompt = random_prompts(7, seed=3)
    run = generate(target(), prompt, NEW_TOKENS, drafter=ModelDrafter(noisy_copy()), policy=policy)
    assert run.outputs == transformers_generate(prompt, NEW_TOKENS)


def test_a_prompt_longer_than_a_piece_of_prefill():
    prompts = random_prompts(300, 4, 513, seed=4)
    run = generate(target(), prompts, 8, drafter=ModelDrafter(noisy_copy()), policy=Tetris(1, 4))
    assert run.outputs == transformers_generate(prompts, 8)


@pytest.mark.parametrize("max_new_tokens", [1, 2, 3])
def test_few_tokens(max_new_tokens):
    run = generate(target(), PROMPTS, max_new_tokens, drafter=ModelDrafter(noisy_copy(noise=0)), policy=FixedLength(4))
    assert run.outputs == transformers_generate(PROMPTS, max_new_tokens)
    drafted = [step.drafted for step in run.steps]
    assert drafted == {1: [], 2: [0], 3: [len(PROMPTS)]}[max_new_tokens], "the last token needs no draft"


@pytest.mark.parametrize("policy", [NO_SPECULATION, FixedLength(3), Tetris(1.4, 4)], ids=str)
def test_stale_cache_slots_are_not_read(monkeypatch, policy):
    """What is behind the last token that a request has just written, rejected drafts too, is garbage."""
    write = KVCache.write

    def poisoned(self, layer, slots, key, value):
        write(self, layer, slots, key, value)
        row = slots // (self.max_len * len(key))
        last = torch.full((self.num_requests,), self.max_len).scatter_reduce(
            0, row, slots % self.max_len, "amax", include_self=False
        )
        stale = torch.arange(self.max_len) > last[:, None]
        for stored in self.layers[layer]:
            stored.transpose(1, 2)[stale] = 1e4

    monkeypatch.setattr(KVCache, "write", poisoned)
    run = generate(target(), PROMPTS, NEW_TOKENS, drafter=ModelDrafter(noisy_copy()), policy=policy)
    assert run.outputs == transformers_generate(PROMPTS, NEW_TOKENS)


@pytest.mark.parametrize("policy", [NO_SPECULATION, FixedLength(3), Tetris(1.4, 4)], ids=str)
def test_only_what_is_needed_is_run(monkeypatch, policy):
    """Prompts, then one token and the selected drafts of each running request."""
    model = target()
    sizes, calls = [], []
    forward, attend = model.forward, packed.scaled_dot_product_attention
    monkeypatch.setattr(model, "forward", lambda **inputs: sizes.append(inputs["input_ids"].shape) or forward(**inputs))
    monkeypatch.setattr(packed, "scaled_dot_product_attention", lambda *a, **o: calls.append(1) or attend(*a, **o))
    eos = transformers_generate(PROMPTS, NEW_TOKENS)[0][5]
    run = generate(model, PROMPTS, NEW_TOKENS, drafter=ngram_drafter(), policy=policy, eos_token_id=eos)
    assert len({step.requests for step in run.steps}) > 1
    tokens = [sum(map(len, PROMPTS)), *(step.requests + step.verified for step in run.steps)]
    assert sizes == [(1, n) for n in tokens]
    assert 4 * len(sizes) <= len(calls) <= 4 * len(sizes) * len(PROMPTS), "one call per layer, or for each request"


def test_models_are_left_as_they_were():
    """Also one that shares its layers, whose config is not that of the model."""
    model = target()
    drafter = skip_layers(model, [1])
    before = [(m.config.to_json_string(), m.config._attn_implementation) for m in (model, drafter)]

    def interrupt(step):
        raise KeyboardInterrupt

    generate(model, PROMPTS, 3, drafter=ModelDrafter(drafter), policy=FixedLength(1))
    with pytest.raises(KeyboardInterrupt):
        generate(model, PROMPTS, 3, drafter=ModelDrafter(drafter), policy=FixedLength(1), on_step=interrupt)
    assert [(m.config.to_json_string(), m.config._attn_implementation) for m in (model, drafter)] == before


def test_a_failing_forward_leaves_the_model_as_it_was(monkeypatch):
    model = target()
    before = model.config._attn_implementation
    monkeypatch.setattr(model.model.layers[2].mlp, "forward", None)
    with pytest.raises(TypeError):
        generate(model, PROMPTS, 3)
    assert model.config._attn_implementation == before


def test_threads_share_a_model():
    expected = transformers_generate(PROMPTS, 6)
    with ThreadPoolExecutor(4) as pool:
        runs = list(pool.map(lambda _: generate(target(), PROMPTS, 6).outputs, range(8)))
    assert runs == [expected] * 8
    assert target().config._attn_implementation == "sdpa"


def test_progress_is_reported():
    seen = []
    run = generate(target(), PROMPTS, 4, on_step=seen.append)
    assert seen == run.steps


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"prompts": []}, "prompts: expected at least one, got none"),
        ({"prompts": [[1], []]}, "prompts: expected at least one token each, got none in prompt 1"),
        ({"max_new_tokens": 0}, "max_new_tokens: expected 1 or more, got 0"),
        ({"policy": FixedLength(2)}, "drafter: expected one for a policy of 2 drafts per request, got None"),
        (
            {"policy": FixedLength(2), "drafter": NgramDrafter(NgramTable.count([], 50))},
            "drafter: expected the target's vocabulary of 97 tokens, got 50",
        ),
    ],
)
def test_bad_input(arguments, text):
    with pytest.raises(ValueError, match=text):
        generate(target(), **{"prompts": PROMPTS, "max_new_tokens": 3, **arguments})


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"prompts": [1, 2, 3]}, "prompts: expected a sequence of token ids for each, got int"),
        ({"max_new_tokens": 2.0}, "max_new_tokens: expected an integer, got float"),
    ],
)
def test_wrong_types(arguments, text):
    with pytest.raises(TypeError, match=text):
        generate(target(), **{"prompts": PROMPTS, "max_new_tokens": 3, **arguments})


def test_prompts_may_be_tensors():
    prompts = torch.tensor(random_prompts(4, 4))
    assert generate(target(), prompts, 5).outputs == transformers_generate(prompts.tolist(), 5)


def test_several_end_tokens():
    [plain] = transformers_generate(PROMPTS[:1], NEW_TOKENS)
    ends = [plain[7], plain[4]]
    assert generate(target(), PROMPTS[:1], NEW_TOKENS, eos_token_id=ends).outputs == [
        plain[: plain.index(plain[4]) + 1]
    ]
