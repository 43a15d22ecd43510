"""Sampled output has the target's distribution, whatever is drafted and selected: the whole decoder, tiny models."""

from __future__ import annotations

import itertools

import pytest
import torch
from tiny_laws import LENGTH, LEVEL, PROMPT, REQUESTS, VOCAB, codes, exact_law, models, p_value

from tetris_decode import decoder, goodput
from tetris_decode.decoder import generate
from tetris_decode.draft_model import ModelDrafter
from tetris_decode.goodput import Dsd
from tetris_decode.ngram import NgramDrafter
from tetris_decode.ngram_table import NgramTable
from tetris_decode.policies import NO_SPECULATION, Calibrated, FixedLength, Tetris, Threshold
from tetris_decode.sampling import Sampling
from tetris_kernels import Calibration, CostTable, Selection


def sample(policy, drafter=None, **options) -> list[list[int]]:
    target, draft_model = models()
    options = {"temperature": 1.0} | options
    return generate(
        target, [PROMPT] * REQUESTS, LENGTH, drafter=drafter or ModelDrafter(draft_model), policy=policy, **options
    ).outputs


TEXTS = [list(text) for text in itertools.product(range(VOCAB), repeat=LENGTH)]
POLICIES = {
    "none": NO_SPECULATION,
    "fixed": FixedLength(2),
    "budget": Tetris(0.7, 2),
    "floors and weights": Tetris(
        0.9, 2, min_lens=torch.arange(REQUESTS) % 3, log_weights=torch.linspace(-1, 1, REQUESTS)
    ),
    "threshold": Threshold(0.4, 2),
}


@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.6, 1.0), (1.4, 0.8)])
def test_drawn_drafts(policy, temperature, top_p):
    outputs = sample(policy, temperature=temperature, top_p=top_p)
    assert p_value(outputs, exact_law(temperature, top_p)) > LEVEL


def test_a_length_that_is_learned(monkeypatch):
    """DSD decides before a step from the steps before it: here anew in each, at the edge of not speculating."""
    monkeypatch.setattr(goodput, "INTERVAL", 1)
    lengths = []

    class Recording(Dsd):
        def num_drafts(self, num_active: int) -> int:
            lengths.append(super().num_drafts(num_active))
            return lengths[-1]

    costs = CostTable({}, (1, 2 * REQUESTS), (1.0, 2.6), (0.0,) * 3)
    outputs = sample(Recording(costs, length=2))
    assert len(set(lengths)) > 1
    assert p_value(outputs, exact_law(1.0, 1.0)) > LEVEL


def test_a_doubtful_draft_that_is_dropped_is_seen():
    """A threshold that verifies only what is above it, and draws as if it had not looked: not lossless."""

    class Dropping(Threshold):
        def select(self, drafts, num_active):
            sure = (drafts.logprobs.exp() >= self.confidence).int().cumprod(1).sum(1)
            return Selection.from_lens(torch.minimum(sure, drafts.lens).int())

    class Forgetting(ModelDrafter):
        def propose(self, batch, num_drafts):
            # What is not handed over cannot be tested.
            drafts = super().propose(batch, num_drafts)
            return drafts._replace(lens=Dropping(0.4, num_drafts).select(drafts, 0).lens.long())

    assert p_value(sample(FixedLength(2), Forgetting(models()[1])), exact_law(1.0, 1.0)) < 1e-12
    # Handed over, it has its test at the bonus position.
    assert p_value(sample(Dropping(0.4, 2)), exact_law(1.0, 1.0)) > LEVEL


@pytest.mark.parametrize("score", ["top", "collision"])
def test_other_scores(score):
    assert p_value(sample(Tetris(0.7, 2), ModelDrafter(models()[1], score=score)), exact_law(1.0, 1.0)) > LEVEL


@pytest.mark.parametrize("score", ["token", "top"])
@pytest.mark.parametrize("warmup", [0, 2])
def test_calibrated_scores(score, warmup):
    """Learned from earlier steps, from drawn tokens too."""
    calibration = Calibration(2, kind=score, warmup=warmup, refit_every=1)
    outputs = sample(Calibrated(Tetris(0.7, 2), calibration), ModelDrafter(models()[1], score=score))
    assert calibration.slope.item() != 1
    assert p_value(outputs, exact_law(1.0, 1.0)) > LEVEL


@pytest.mark.parametrize("policy", [FixedLength(2), Tetris(0.7, 2)], ids=["fixed", "budget"])
def test_drafts_that_are_chosen(policy):
    """N-grams: not drawn, so tested as certain."""
    table = NgramTable.count([[1, 3, 2, 0, 3, 1, 3, 2, 0, 2, 1]], VOCAB)
    assert p_value(sample(policy, NgramDrafter(table)), exact_law(1.0, 1.0)) > LEVEL


def test_greedy_and_sampled_requests_in_one_batch():
    temperatures = [0.0, 0.8] * (REQUESTS // 2)
    outputs = sample(Tetris(0.7, 2), temperature=temperatures)
    greedy = generate(models()[0], [PROMPT], LENGTH).outputs[0]
    assert all(output == greedy for output in outputs[::2])
    assert p_value(outputs[1::2], exact_law(0.8, 1.0)) > LEVEL


@pytest.mark.parametrize("policy", [Tetris(0.7, 2), Threshold(0.4, 2)], ids=["budget", "threshold"])
def test_requests_that_take_the_rows_of_others(policy):
    """Those of another temperature, in the middle of the others' texts, with what the drafter has of their rows."""
    prompts = [PROMPT, [3, 0, 3, 1, 2, 0, 1]] * (REQUESTS // 2)
    temperatures = [1.3, 0.6] * (REQUESTS // 2)
    # Every third is shorter, so that rows are not given away all at once.
    limits = [LENGTH - (request % 3 == 2) for request in range(REQUESTS)]
    outputs = generate(
        models()[0],
        prompts,
        limits,
        batch_size=REQUESTS // 5,
        drafter=ModelDrafter(models()[1]),
        policy=policy,
        temperature=temperatures,
    ).outputs
    for parity in (0, 1):
        texts = [text for text in outputs[parity::2] if len(text) == LENGTH]
        assert p_value(texts, exact_law(temperatures[parity], prompt=prompts[parity])) > LEVEL


def test_requests_that_end():
    """An end token ends a request; what would follow has the law of nothing."""
    eos = 2
    ended = [[*text[: text.index(eos)], *[eos] * (LENGTH - text.index(eos))] if eos in text else text for text in TEXTS]
    law = torch.zeros(len(TEXTS), dtype=torch.float64).index_add_(0, codes(ended), exact_law(1.0, 1.0))
    outputs = sample(Tetris(0.7, 2), eos_token_id=eos)
    assert len({len(output) for output in outputs}) == LENGTH
    assert p_value([[*output, *[eos] * (LENGTH - len(output))] for output in outputs], law) > LEVEL


@pytest.mark.parametrize("policy", [Tetris(0.7, 2), FixedLength(2)], ids=["budget", "fixed"])
def test_requests_are_independent(policy):
    """The joint law of neighbours is the product, though they share a budget."""
    outputs = sample(policy)
    pairs = [[*first[:2], *second[:2]] for first, second in zip(outputs[::2], outputs[1::2], strict=True)]
    first_two = exact_law(1.0, 1.0).view(VOCAB**2, -1).sum(1)
    assert p_value(pairs, torch.outer(first_two, first_two).flatten()) > LEVEL


def test_a_bonus_drawn_directly_is_seen(monkeypatch):
    """What the tests above would say of a decoder that is not lossless."""
    accept = decoder.accept
    monkeypatch.setattr(decoder, "accept", lambda *args, **options: accept(*args, **options, bonus="direct"))
    assert p_value(sample(Tetris(0.7, 2)), exact_law(1.0, 1.0)) < 1e-12


def test_the_test_sees_another_temperature():
    assert p_value(sample(NO_SPECULATION, temperature=0.9), exact_law(1.0, 1.0)) < 1e-6


def test_each_random_number_is_used_once(monkeypatch):
    """To draw a draft, to test one, or to draw the last token."""
    used = []
    accept, draw = decoder.accept, Sampling.draw

    def recording_accept(logits, packed, draft_ids, uniforms, **options):
        used.append(uniforms)
        return accept(logits, packed, draft_ids, uniforms, **options)

    def recording_draw(self, scaled, uniforms):
        used.append(uniforms)
        return draw(self, scaled, uniforms)

    monkeypatch.setattr(decoder, "accept", recording_accept)
    monkeypatch.setattr(Sampling, "draw", recording_draw)
    generate(models()[0], [PROMPT] * 4, 6, drafter=ModelDrafter(models()[1]), policy=Tetris(1, 3), temperature=1.0)
    numbers = torch.cat([uniforms.flatten() for uniforms in used])
    assert len(numbers) > 50 and numbers.unique().numel() == len(numbers)


def test_drafts_are_of_use():
    """Otherwise the tests would show nothing: some drafts are accepted, some not, some by the coupled bonus."""
    run = generate(
        models()[0], [PROMPT] * 500, 8, drafter=ModelDrafter(models()[1]), policy=Tetris(0.7, 3), temperature=1.0
    )
    accepted, verified = (sum(getattr(step, name) for step in run.steps) for name in ("accepted", "verified"))
    assert 0.3 < accepted / verified < 0.95
    assert max(step.accepted / step.requests for step in run.steps) <= 3
    deep = generate(models()[0], [PROMPT] * 500, LENGTH, drafter=ModelDrafter(models()[1]), policy=FixedLength(2))
    assert max(step.drafted / step.requests for step in deep.steps) == 2, "second drafts in the tests above"
    coupled = sum(step.coupled for step in run.steps)
    assert coupled > 0
    assert sum(step.emitted for step in run.steps) <= accepted + sum(step.requests for step in run.steps)


def test_seeds_decide():
    prompts, policy = [PROMPT] * 40, Tetris(1, 3)

    def run(seeds):
        drafter = ModelDrafter(models()[1])
        return generate(models()[0], prompts, 12, drafter=drafter, policy=policy, temperature=1.0, seeds=seeds).outputs

    assert run(range(40)) == run(range(40)) == run(None)
    other = run(range(40, 80))
    assert other != run(range(40))
    same = run([7] * 40)
    assert len({tuple(output) for output in other}) > 30
    assert len({tuple(output) for output in same}) < 40, "equal prompts, seeds and selections: equal texts"
