"""Requests that take the places of those that ended: the texts are the same, the batch stays full."""

from __future__ import annotations

import pytest
import torch
from tiny_models import NEW_TOKENS, PROMPTS, VOCAB_SIZE, noisy_copy, random_prompts, target, transformers_generate

from tetris_decode.batch import Batch
from tetris_decode.decoder import generate
from tetris_decode.draft_model import ModelDrafter
from tetris_decode.ngram import NgramDrafter
from tetris_decode.ngram_table import NgramTable
from tetris_decode.policies import NO_SPECULATION, FixedLength, Tetris
from tetris_decode.sampling import Sampling

DRAFTERS = {
    "model": lambda: ModelDrafter(noisy_copy()),
    "n-grams": lambda: NgramDrafter(NgramTable.count(random_prompts(400, seed=5), VOCAB_SIZE)),
}


def test_rows_go_to_those_that_wait_in_order():
    batch = Batch([[1, 2, 3], [4], [5, 6], [7] * 9], [2, 3, 4, 1], num_rows=2, eos_token_ids=[8])
    assert batch.requests == [0, 1] and batch.num_waiting == 2 and batch.refill() == []
    assert batch.tokens.shape == (2, 11), "the longest of all requests has room"
    batch.append(torch.tensor([[5, 5], [8, 0]]), torch.tensor([1, 1]))
    assert batch.done.tolist() == [False, True]
    assert batch.refill() == [1] and batch.requests == [0, 2]
    assert batch.tokens[1, :2].tolist() == [5, 6]
    assert (batch.lens.tolist(), batch.max_lens.tolist(), batch.done.tolist()) == ([4, 2], [5, 6], [False, False])
    batch.append(torch.tensor([[9, 9], [9, 8]]), torch.tensor([1, 2]))
    assert batch.refill() == [0] and batch.num_waiting == 0, "two ended, one waits"
    assert batch.outputs() == [[5, 9], [8], [9, 8], []]
    assert batch.done.tolist() == [False, True]
    assert batch.refill() == []


def test_a_row_has_the_sampling_of_its_request():
    sampling = Sampling(3, temperature=[0.0, 0.5, 2.0], seeds=[1, 2, 3])
    batch = Batch([[1], [1], [1]], 1, num_rows=2, sampling=sampling)
    batch.append(torch.tensor([[5], [5]]), torch.tensor([1, 0]))
    batch.refill()
    assert batch.sampling.temperature.tolist() == [2.0, 0.5]
    alone = Sampling(2, temperature=1.0, seeds=[3, 2])
    assert torch.equal(batch.sampling.uniforms(3), alone.uniforms(3))
    assert batch.sampling.uniforms(2, [1])[0].tolist() == [0, 0], "whose row is not asked for draws nothing"
    alone.uniforms(2, [1])
    assert torch.equal(batch.sampling.uniforms(1), alone.uniforms(1))


@pytest.mark.parametrize("batch_size", [1, 2, 4, 9])
@pytest.mark.parametrize("policy", [NO_SPECULATION, FixedLength(3), Tetris(1, 4), Tetris(0.5, 4)], ids=str)
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_texts_do_not_depend_on_the_batch_size(batch_size, policy, drafter):
    limits = [NEW_TOKENS, 1, 5, NEW_TOKENS, 9]
    run = generate(target(), PROMPTS, limits, batch_size=batch_size, drafter=DRAFTERS[drafter](), policy=policy)
    whole = transformers_generate(PROMPTS, NEW_TOKENS)
    assert run.outputs == [text[:limit] for text, limit in zip(whole, limits, strict=True)]
    assert max(step.requests for step in run.steps) == min(batch_size, 4), "one ends with its first token"


@pytest.mark.parametrize("limits", [[1, 5, 1, 1, 4], [1, 1, 1, 1, 1], [1, 1, 1, 1, 3], [3, 1, 1, 1, 1]], ids=str)
@pytest.mark.parametrize("batch_size", [1, 2, 3, 5])
def test_requests_that_end_with_their_first_token(batch_size, limits):
    """The next ones take their places at once, also before the first step."""
    run = generate(target(), PROMPTS, limits, batch_size=batch_size)
    whole = transformers_generate(PROMPTS, NEW_TOKENS)
    assert run.outputs == [text[:limit] for text, limit in zip(whole, limits, strict=True)]
    assert [times.tokens for times in run.requests] == limits
    running = [limit for limit in limits if limit > 1]
    assert [step.requests for step in run.steps][:1] == [min(batch_size, len(running))][: len(running)]


def test_preferences_are_of_rows():
    """Whichever request has the row; more of them than rows are refused."""
    outputs = transformers_generate(PROMPTS, NEW_TOKENS)
    policy = Tetris(1, 3, min_lens=torch.tensor([2, 0]))
    drafter = ModelDrafter(noisy_copy())
    run = generate(target(), PROMPTS, NEW_TOKENS, batch_size=2, drafter=drafter, policy=policy)
    assert run.outputs == outputs
    with pytest.raises(ValueError, match=r"min_lens: expected .*2.*, got .*5"):
        policy = Tetris(1, 3, min_lens=torch.ones(5, dtype=torch.int64))
        generate(target(), PROMPTS, NEW_TOKENS, batch_size=2, drafter=drafter, policy=policy)


def test_requests_that_end_early_make_room():
    outputs = transformers_generate(PROMPTS, NEW_TOKENS)
    eos = max(range(VOCAB_SIZE), key=lambda token: len({o.index(token) for o in outputs if token in o}))
    run = generate(target(), PROMPTS * 3, NEW_TOKENS, batch_size=3, eos_token_id=eos)
    assert run.outputs == transformers_generate(PROMPTS, NEW_TOKENS, eos=eos) * 3
    counts = [step.requests for step in run.steps]
    assert counts == sorted(counts, reverse=True), "full until nobody waits"
    assert sum(step.emitted for step in run.steps) + 15 == sum(map(len, run.outputs))


@pytest.mark.parametrize("temperature", [1.0, [0.0, 0.7, 1.0, 1.3, 0.5]])
def test_sampled_texts_do_not_depend_on_the_batch_size(temperature):
    """Without drafts, whose number would decide how many random numbers a step takes."""
    sampled = [
        generate(target(), PROMPTS, 12, batch_size=size, temperature=temperature, seeds=[9, 8, 7, 6, 5]).outputs
        for size in (1, 2, 5)
    ]
    assert sampled[0] == sampled[1] == sampled[2]


def test_times_of_requests():
    seen = []
    run = generate(target(), PROMPTS, [4, 1, 2, 6, 3], batch_size=2, on_step=seen.append)
    assert [times.tokens for times in run.requests] == [4, 1, 2, 6, 3]
    assert run.steps == seen and sum(step.emitted for step in seen) == 3 + 0 + 1 + 5 + 2
    for times in run.requests:
        assert 0 <= times.admitted < times.first <= times.last
    assert run.requests[1].first == run.requests[1].last, "of one token"
    assert run.requests[0].admitted == run.requests[1].admitted == 0
    assert run.requests[2].admitted >= run.requests[1].last
    total = run.prefill_seconds + sum(step.seconds for step in run.steps)
    assert max(times.last for times in run.requests) == pytest.approx(total)


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"batch_size": 0}, ValueError, "batch_size: expected 1 or more, got 0"),
        ({"batch_size": 2.0}, TypeError, "batch_size: expected an integer, got float"),
        ({"max_new_tokens": [3, 4]}, ValueError, "max_new_tokens: expected one number, or 5, got 2"),
        ({"max_new_tokens": [3, 4, 0, 1, 1]}, ValueError, "max_new_tokens: expected 1 or more, got 0"),
        ({"max_new_tokens": [3, 4, 1.0, 1, 1]}, TypeError, "max_new_tokens: expected an integer, got float"),
    ],
)
def test_bad_input(options, error, text):
    with pytest.raises(error, match=text):
        generate(target(), PROMPTS, **{"max_new_tokens": 3, **options})
