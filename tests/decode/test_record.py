"""The recorder: texts, drafts and acceptance against the models themselves."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from tiny_models import NEW_TOKENS, PROMPTS, VOCAB_SIZE, noisy_copy, target, transformers_generate

from tetris_decode.decoder import generate
from tetris_decode.draft_model import ModelDrafter
from tetris_decode.ngram import NgramDrafter
from tetris_decode.ngram_table import NgramTable
from tetris_decode.record import Recorder, record
from tetris_decode.traces import Run

LIMITS = [NEW_TOKENS, 1, 5, NEW_TOKENS, 9]


def ngrams() -> NgramDrafter:
    return NgramDrafter(NgramTable.count(transformers_generate(PROMPTS, NEW_TOKENS), VOCAB_SIZE))


def probabilities(model, prefix: list[int], temperature: float) -> torch.Tensor:
    """Of the next token, from a forward of transformers over the whole text."""
    with torch.inference_mode():
        logits = model(input_ids=torch.tensor([prefix]), use_cache=False).logits[0, -1].double()
    return (logits / temperature).softmax(-1)


def rows(run: Run):
    """(row, request, its text so far) of each row."""
    for row, (request, generated) in enumerate(zip(run.request, run.generated, strict=True)):
        yield row, int(request), PROMPTS[request] + run.text(request)[:generated]


@pytest.mark.parametrize("temperature", [0.0, 0.7])
@pytest.mark.parametrize("make", [ngrams, lambda: ModelDrafter(noisy_copy())], ids=["ngram", "model"])
def test_acceptance_is_what_the_models_say(make, temperature):
    limits = [8, 1, 5, 6, 4]
    run = record(target(), PROMPTS, limits, make(), num_drafts=3, batch_size=2, temperature=temperature)
    assert run.num_tokens.tolist() == run.limits.tolist() == limits
    assert run.drawn == (temperature > 0 and not isinstance(make(), NgramDrafter))
    assert run.draft_lens.max() == 3 and (run.draft_lens == 0).sum() == 4, "the last token needs no draft"
    for row, _, prefix in rows(run):
        for j in range(3):
            if j >= run.draft_lens[row]:
                columns = run.ids, run.log_q, run.acceptance, run.accepted
                assert [column[row, j] for column in columns] == [0, 0, 0, 0]
                continue
            before, draft = prefix + run.ids[row, :j].tolist(), int(run.ids[row, j])
            p = probabilities(target(), before, temperature or 1)
            q = probabilities(noisy_copy(), before, temperature or 1)
            if not isinstance(make(), NgramDrafter):
                assert run.log_q[row, j] == pytest.approx(float(q[draft].log()), abs=1e-3)
            if temperature == 0:
                expected = float(p.argmax() == draft)
                assert run.accepted[row, j] == expected
            else:
                expected = min(1.0, float(p[draft] / q[draft])) if run.drawn else float(p[draft])
            # float16 has 11 bits, and 2^-24 is its least.
            assert run.acceptance[row, j] == pytest.approx(expected, rel=1e-3, abs=1e-6)


@pytest.mark.parametrize("make", [ngrams, lambda: ModelDrafter(noisy_copy())], ids=["ngram", "model"])
def test_greedy_texts_are_plain_decoding_s(make):
    steps = []
    run = record(target(), PROMPTS, LIMITS, make(), batch_size=2, on_step=steps.append)
    whole = transformers_generate(PROMPTS, NEW_TOKENS)
    assert [run.text(r) for r in range(5)] == [text[:limit] for text, limit in zip(whole, LIMITS, strict=True)]
    assert sum(step.emitted for step in steps) == sum(step.requests for step in steps) == len(run.ids)
    assert sum(step.accepted for step in steps) == np.logical_and.accumulate(run.accepted, axis=1).sum()


def test_drafts_are_those_of_the_drafter_at_each_position():
    """Of n-grams, which remember nothing: a batch of the text so far gives the same."""
    from tetris_decode.batch import Batch

    run = record(target(), PROMPTS, 6, ngrams(), num_drafts=4, batch_size=3)
    for row, request, prefix in rows(run):
        room = 6 - (len(prefix) - len(PROMPTS[request]))
        expected = ngrams().propose(Batch([prefix], room), 4)
        lens = int(expected.lens[0])
        assert lens == run.draft_lens[row]
        assert run.ids[row, :lens].tolist() == expected.ids[0, :lens].tolist()
        np.testing.assert_allclose(run.log_q[row, :lens], expected.logprobs[0, :lens], rtol=1e-5)


@pytest.mark.parametrize("drawn", [False, True])
def test_outcomes_are_drawn_by_their_acceptance(drawn):
    """Each draft's outcome, also past the first rejection and where the text decided it."""
    drafter = ModelDrafter(noisy_copy(noise=0.4)) if drawn else ngrams()
    run = record(target(), PROMPTS * 40, 12, drafter, num_drafts=4, temperature=1.0 if drawn else 0.4)
    assert run.drawn == drawn
    there = np.arange(4) < run.draft_lens[:, None]
    leading = np.logical_and.accumulate(run.accepted, axis=1)
    behind = np.pad(~leading[:, :-1], ((0, 0), (1, 0)))
    for where in (there & ~behind, there & behind):
        p = run.acceptance[where].astype(np.float64)
        deviation = (run.accepted[where] - p).sum() / np.sqrt((p * (1 - p)).sum())
        assert where.sum() > 1000 and 0.05 < p.mean() < 0.9
        assert abs(deviation) < 4


def test_outcomes_of_chosen_drafts_are_the_text():
    run = record(target(), PROMPTS * 8, 12, ngrams(), num_drafts=4, temperature=0.4)
    accepted = 0
    for row, (request, generated) in enumerate(zip(run.request, run.generated, strict=True)):
        follows = run.text(int(request))[generated:]
        for j in range(run.draft_lens[row]):
            assert run.accepted[row, j] == (run.ids[row, j] == follows[j])
            if not run.accepted[row, j]:
                break
            accepted += 1
    assert accepted > 20


def test_top_p_leaves_out():
    run = record(target(), PROMPTS, 8, ngrams(), num_drafts=3, temperature=1.0, top_p=0.3)
    wide = record(target(), PROMPTS, 8, ngrams(), num_drafts=3, temperature=1.0)
    there = np.arange(3) < run.draft_lens[:, None]
    assert (run.acceptance[there] == 0).mean() > (wide.acceptance[there] == 0).mean()
    assert not run.accepted[run.acceptance == 0].any() and run.about["top_p"] == "0.3"


def test_an_interrupted_recording_is_what_was_recorded():
    recorder = Recorder(target(), PROMPTS, 9, ngrams(), batch_size=2, num_drafts=3, prompt_names=list("abcde"))
    for _ in range(11):
        recorder.step()
    part, whole = recorder.run(), record(target(), PROMPTS, 9, ngrams(), batch_size=2, num_drafts=3)
    # Eight steps for the first two; three for the next two.
    assert part.prompts == ("a", "b", "c", "d")
    assert part.num_tokens.tolist() == part.limits.tolist() == [9, 9, 4, 4]
    for r in range(4):
        assert part.text(r) == whole.text(r)[: part.num_tokens[r]]
    assert part.draft_lens.tolist() == [*[3, 3, 3, 3, 3, 2, 1, 0] * 2, *[2, 1, 0] * 2]
    assert part.log_q[:16].tolist() == whole.log_q[:16].tolist()


def test_interrupted_within_a_step():
    """A row was taken and its token was not."""
    recorder = Recorder(target(), PROMPTS, 9, ngrams(), num_drafts=3)
    recorder.step()
    recorder.batch.append = None
    with pytest.raises(TypeError):
        recorder.step()
    assert recorder.run().num_tokens.tolist() == [2] * 5


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"num_drafts": 0}, "num_drafts: expected 1 or more, got 0"),
        ({"prompt_names": ["a"]}, "prompt_names: expected one for each of 5 prompts, got 1"),
        ({"batch_size": 0}, "batch_size: expected 1 or more, got 0"),
        ({"temperature": -1.0}, "temperature: expected"),
    ],
)
def test_bad_input(options, text):
    with pytest.raises(ValueError, match=text):
        record(target(), PROMPTS, 3, ngrams(), **options)


def test_recording_does_not_change_what_is_generated():
    run = record(target(), PROMPTS, 8, ngrams(), num_drafts=3)
    assert [run.text(r) for r in range(5)] == generate(target(), PROMPTS, 8).outputs
