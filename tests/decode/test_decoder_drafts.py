"""What the decoder asks of a drafter, when, and what it makes of the drafts."""

from __future__ import annotations

import re
from itertools import chain

import pytest
import torch
from tiny_models import NEW_TOKENS, PROMPTS, VOCAB_SIZE, noisy_copy, random_prompts, target, transformers_generate

from tetris_decode.batch import Batch
from tetris_decode.decoder import generate
from tetris_decode.draft_model import ModelDrafter
from tetris_decode.drafting import Drafts
from tetris_decode.policies import NO_SPECULATION, FixedLength, Tetris


class Scripted:
    """Drafts the same token for all, `lens[r]` times for request r, and counts its calls."""

    vocab_size = VOCAB_SIZE

    def __init__(self, lens):
        self.lens = torch.tensor(lens)
        self.calls = 0

    def start(self, batch: Batch) -> None:
        self.calls = 0

    def propose(self, batch: Batch, num_drafts: int) -> Drafts:
        self.calls += 1
        # Whatever stands behind a request is scratch: nobody may rely on it.
        batch.tokens.masked_fill_(torch.arange(batch.tokens.shape[1]) >= batch.lens[:, None], VOCAB_SIZE - 1)
        ids = torch.full((len(self.lens), num_drafts), 13)
        logprobs = torch.full(ids.shape, -0.5)
        # What is beyond lens means nothing.
        logprobs[torch.arange(num_drafts) >= self.lens[:, None]] = torch.nan
        return Drafts(ids, logprobs, torch.minimum(self.lens, batch.max_drafts).clamp(max=num_drafts))


class Eager(Scripted):
    """Drafts on where a request has no use for more."""

    def propose(self, batch: Batch, num_drafts: int) -> Drafts:
        return super().propose(batch, num_drafts)._replace(lens=torch.full((len(self.lens),), num_drafts))


class Misshapen(Scripted):
    """Ids of one draft too few."""

    def propose(self, batch: Batch, num_drafts: int) -> Drafts:
        drafts = super().propose(batch, num_drafts)
        return drafts._replace(ids=drafts.ids[:, 1:])


@pytest.mark.parametrize("policy", [FixedLength(3), Tetris(1, 3), Tetris(3, 3)], ids=str)
@pytest.mark.parametrize("lens", [[0, 2, 0, 3, 1], [0, 0, 0, 0, 0]], ids=str)
def test_requests_without_drafts(policy, lens):
    run = generate(target(), PROMPTS, NEW_TOKENS, drafter=Scripted(lens), policy=policy)
    assert run.outputs == transformers_generate(PROMPTS, NEW_TOKENS)
    assert run.steps[0].drafted == sum(lens)


@pytest.mark.parametrize("policy", [FixedLength(3), Tetris(3, 3)], ids=str)
def test_drafts_that_are_of_no_use_are_not_verified(policy):
    run = generate(target(), PROMPTS, 3, drafter=Eager([3] * len(PROMPTS)), policy=policy)
    assert run.outputs == transformers_generate(PROMPTS, 3)
    assert run.steps[0].drafted == run.steps[0].verified == len(PROMPTS), "two tokens are left, one of them a draft"


@pytest.mark.parametrize("policy", [NO_SPECULATION, Tetris(0, 4), Tetris(0.1, 4)], ids=str)
def test_budget_0_does_not_draft(policy):
    drafter = Scripted([3] * len(PROMPTS))
    run = generate(target(), PROMPTS, 5, drafter=drafter, policy=policy)
    assert drafter.calls == 0
    assert run.outputs == transformers_generate(PROMPTS, 5)


def test_drafting_pauses():
    """The drafter's cache stays right while requests grow without it."""
    prompts = random_prompts(4, 4, 4, 4, 4, seed=6)
    policy = Alternating(Tetris(2, 4))
    run = generate(target(), prompts, NEW_TOKENS, drafter=ModelDrafter(noisy_copy(noise=0)), policy=policy)
    assert run.outputs == transformers_generate(prompts, NEW_TOKENS)
    drafting = [step for step in run.steps if step.drafted]
    assert len(drafting) < len(run.steps)
    assert sum(step.accepted for step in drafting) == sum(step.verified for step in drafting), "noise 0: all right"


def test_drafting_stops_when_the_budget_rounds_to_0():
    """0.3 drafts each: some for several requests, none for the last one."""
    outputs = transformers_generate(PROMPTS, NEW_TOKENS)
    # A token that one request never generates and the others do, or as nearly so as there is.
    eos = max(chain.from_iterable(outputs), key=lambda token: sum(token in output for output in outputs) % len(outputs))
    run = generate(
        target(), PROMPTS, NEW_TOKENS, drafter=ModelDrafter(noisy_copy()), policy=Tetris(0.3, 4), eos_token_id=eos
    )
    assert run.outputs == transformers_generate(PROMPTS, NEW_TOKENS, eos=eos)
    assert run.steps[0].drafted > 0 and run.steps[0].requests > 1
    alone = [step for step in run.steps if step.requests == 1]
    assert alone and not any(step.drafted for step in alone)


class Alternating:
    """Another policy in every second step, none in the others."""

    def __init__(self, policy):
        self.policy = policy
        self.length = policy.length
        self.steps = 0

    def num_drafts(self, num_active):
        self.steps += 1
        return self.policy.num_drafts(num_active) if self.steps % 2 else 0

    def select(self, drafts, num_active):
        return self.policy.select(drafts, num_active) if drafts.ids.shape[1] else NO_SPECULATION.select(drafts, 0)

    def observe(self, step, outcome):
        self.policy.observe(step, outcome)


def test_counts_of_a_step():
    run = generate(target(), PROMPTS, NEW_TOKENS, drafter=ModelDrafter(noisy_copy()), policy=Tetris(1, 4))
    first = run.steps[0]
    assert first.requests == 5 and first.drafted == 20 and first.verified == 5
    for step in run.steps:
        assert step.accepted <= step.verified <= step.drafted
        assert step.emitted == step.accepted + step.requests
        assert 0 < step.draft_seconds + step.select_seconds < step.seconds
    assert run.prefill_seconds > 0


def test_accepted_drafts_behind_an_end_count_as_accepted():
    outputs = transformers_generate(PROMPTS, NEW_TOKENS)
    eos = outputs[0][7]
    drafter = ModelDrafter(noisy_copy(noise=0))
    run = generate(target(), PROMPTS, NEW_TOKENS, drafter=drafter, policy=FixedLength(4), eos_token_id=eos)
    assert run.outputs == transformers_generate(PROMPTS, NEW_TOKENS, eos=eos)
    assert all(step.accepted == step.verified for step in run.steps), "noise 0: all right"
    assert any(step.emitted < step.accepted + step.requests for step in run.steps)


def test_noise_lowers_acceptance():
    accepted = {}
    for noise in (0, 0.02, 0.05, 0.5):
        prompts = random_prompts(*[4] * 16, seed=7)
        run = generate(target(), prompts, 32, drafter=ModelDrafter(noisy_copy(noise=noise)), policy=FixedLength(1))
        accepted[noise] = sum(s.accepted for s in run.steps) / sum(s.verified for s in run.steps)
    assert accepted[0] == 1
    assert list(accepted.values()) == sorted(accepted.values(), reverse=True)
    assert accepted[0.5] < 0.3


def test_drafts_of_another_shape_are_refused():
    text = re.escape("drafter: expected ids and logprobs (5, 2), got (5, 1) and (5, 2)")
    with pytest.raises(ValueError, match=text):
        generate(target(), PROMPTS, 4, drafter=Misshapen([1] * 5), policy=FixedLength(2))
