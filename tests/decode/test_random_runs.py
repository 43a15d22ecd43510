"""Greedy runs of everything at once: prompts, limits, ends, batch sizes, drafters and policies by chance."""

from __future__ import annotations

import random

import pytest
from tiny_models import VOCAB_SIZE, noisy_copy, random_prompts, target, transformers_generate

from tetris_decode import goodput
from tetris_decode.decoder import generate
from tetris_decode.draft_model import ModelDrafter
from tetris_decode.drafting import Drafter
from tetris_decode.goodput import Dsd
from tetris_decode.ngram import NgramDrafter
from tetris_decode.ngram_table import NgramTable
from tetris_decode.policies import NO_SPECULATION, FixedLength, Policy, Tetris, Threshold
from tetris_kernels import CostTable

LONGEST = 20


def make_prompts(rng: random.Random) -> list[list[int]]:
    """Different ones, one and the same, or beginnings of one: then a drafter's cache of a row fits the next request."""
    prompts = random_prompts(*rng.choices([1, 2, 5, 30], k=rng.randint(1, 12)), seed=rng.randint(0, 5))
    first = prompts[0]
    return rng.choice([prompts, [first] * len(prompts), [first[: rng.randint(1, len(first))] for _ in prompts]])


def make_policy(rng: random.Random) -> Policy:
    length = rng.randint(1, 5)
    costs = CostTable({}, (1, 30), (1.0, rng.choice([1.0, 2.0, 6.0])), (0.0,) * 6)
    fixed, tetris = FixedLength(length), Tetris(rng.choice([0.2, 0.5, 1, 2.3]), length)
    return rng.choice([NO_SPECULATION, fixed, tetris, Threshold(rng.random(), length), Dsd(costs, length)])


def make_drafter(rng: random.Random) -> Drafter:
    table = NgramTable.count(random_prompts(400, seed=5), VOCAB_SIZE)
    return rng.choice([ModelDrafter(noisy_copy(noise=rng.choice([0, 0.05, 0.5]))), NgramDrafter(table)])


@pytest.mark.parametrize("seed", range(60))
def test_texts_counts_and_times(seed, monkeypatch):
    monkeypatch.setattr(goodput, "INTERVAL", 3)
    rng = random.Random(seed)
    prompts = make_prompts(rng)
    limits = rng.choices([1, 2, 3, 8, LONGEST], k=len(prompts))
    texts = transformers_generate(prompts, LONGEST)
    eos = rng.choice([None, rng.choice([token for text in texts for token in text])])
    texts = [text[:limit] for text, limit in zip(texts, limits, strict=True)]
    texts = [text[: text.index(eos) + 1] if eos in text else text for text in texts]
    size = rng.randint(1, len(prompts) + 1)
    run = generate(
        target(),
        prompts,
        limits,
        batch_size=size,
        drafter=make_drafter(rng),
        policy=make_policy(rng),
        eos_token_id=eos,
    )
    assert run.outputs == texts
    assert [times.tokens for times in run.requests] == list(map(len, texts))
    assert sum(step.emitted for step in run.steps) == sum(map(len, texts)) - len(texts)
    for step in run.steps:
        assert 1 <= step.requests <= size
        assert step.accepted + step.rejected <= step.verified <= step.drafted
        assert step.rejected + step.coupled <= step.requests
    for times in run.requests:
        assert 0 <= times.admitted < times.first <= times.last
        assert (times.first < times.last) == (times.tokens > 1)
