"""DSD: the length of the best goodput by a made-up table, what it learns, and whole runs."""

from __future__ import annotations

import random
from fractions import Fraction

import pytest
import torch
from tiny_models import NEW_TOKENS, PROMPTS, noisy_copy, random_prompts, target, transformers_generate

from tetris_decode.decoder import generate
from tetris_decode.draft_model import ModelDrafter
from tetris_decode.drafting import Drafts
from tetris_decode.goodput import INTERVAL, Dsd
from tetris_decode.metrics import Step
from tetris_decode.policies import Outcome
from tetris_kernels import CostTable

# DSD learns from totals.
NOT_LOOKED_AT = Outcome(Drafts.none(torch.zeros(1, 1)), torch.zeros(1), torch.zeros(1), torch.zeros(1))


def table(tokens=(1, 200), seconds=(1.0, 1.0), draft_seconds=(0.0,) * 7) -> CostTable:
    return CostTable({}, tokens, seconds, draft_seconds)


FREE = table()
# A step takes as long as its tokens: another draft gains less than it costs.
BY_THE_TOKEN = table(seconds=(1.0, 200.0))


def step(accepted=0, rejected=0) -> Step:
    return Step(1, 1, 1, accepted, rejected, 0, 1, 0.0, 0.0, 1.0)


def best_length(costs: CostTable, rate: Fraction, length: int, num_active: int) -> int:
    """By the formula of the paper's code, in fractions: up to the first drop."""
    goodput = []
    for k in range(length + 1):
        expected = (1 - rate ** (k + 1)) / (1 - rate)
        seconds = Fraction(costs.verification(num_active * (k + 1))) + Fraction(costs.draft_seconds[k])
        goodput.append(num_active * expected / seconds)
    goodput[0] *= Fraction(11, 10)
    drops = [k for k in range(1, length + 1) if goodput[k] < goodput[k - 1]]
    return (drops[0] if drops else length + 1) - 1


def random_dsd(seed: int) -> tuple[Dsd, int]:
    """With costs and a rate, and how many requests run."""
    rng = random.Random(seed)
    tokens = sorted(rng.sample(range(1, 200), 4))
    seconds = sorted(rng.randint(1, 1000) / 256 for _ in tokens)
    drafting = sorted(rng.randint(0, 500) / 1024 for _ in range(7))
    dsd = Dsd(table(tuple(tokens), tuple(seconds), tuple(drafting)))
    dsd.rate = rng.randint(0, 63) / 64
    return dsd, rng.randint(1, 40)


@pytest.mark.parametrize("seed", range(60))
def test_length_by_costs(seed):
    dsd, num_active = random_dsd(seed)
    assert dsd.num_drafts(num_active) == best_length(dsd.costs, Fraction(dsd.rate), 6, num_active)


def test_random_tables_give_all_lengths():
    """Otherwise the test above would show little."""
    lengths = [dsd.num_drafts(num_active) for dsd, num_active in map(random_dsd, range(60))]
    assert len(set(lengths)) >= 4


def test_lengths_beyond_a_drop_are_not_seen():
    """At 4 tokens a step becomes dear, and free from there on: longer ones would be better, and are not looked at."""
    costs = table((1, 3, 4, 200), (1.0, 1.0, 4.0, 4.0))
    dsd = Dsd(costs)
    dsd.rate = 1.0
    assert dsd.goodput(6, 1) < dsd.goodput(2, 1)
    assert dsd.num_drafts(1) == 2
    dear = table((1, 2, 200), (1.0, 3.0, 3.0))
    dsd = Dsd(dear)
    dsd.rate = 1.0
    assert dsd.goodput(6, 1) > 1.1 * dsd.goodput(0, 1)
    assert dsd.num_drafts(1) == 0


def test_not_to_speculate_is_favoured():
    for gain, expected in ((1.09, 0), (1.11, 1)):
        dsd = Dsd(table((1, 2), (1.0, 1.7 / gain)), length=1)
        assert dsd.goodput(1, 1) / dsd.goodput(0, 1) == pytest.approx(gain)
        assert dsd.num_drafts(1) == expected


@pytest.mark.parametrize("rate", [0.0, 1.0])
def test_rates_at_the_ends(rate):
    dsd = Dsd(FREE)
    dsd.rate = rate
    assert dsd.goodput(3, 2) == 2 * (1 + 3 * rate)
    assert dsd.num_drafts(2) == 6 * rate


def test_what_it_learns():
    """The share of the tested drafts that were accepted; steps without a test teach nothing."""
    dsd, rate = Dsd(FREE), Fraction(7, 10)
    for accepted, rejected in [(3, 1), (0, 0), (0, 4), (5, 0), (0, 0), (1, 1)]:
        dsd.observe(step(accepted, rejected), NOT_LOOKED_AT)
        if accepted + rejected:
            rate = Fraction(85, 100) * rate + Fraction(15, 100) * Fraction(accepted, accepted + rejected)
        assert dsd.rate == pytest.approx(float(rate), rel=1e-12)


def test_it_decides_every_twenty_steps():
    dsd, lengths = Dsd(table((1, 200), (1.0, 60.0))), []
    for number in range(60):
        # Nothing is accepted for 20 steps, then everything would be; but one that does not draft learns nothing.
        lengths.append(dsd.num_drafts(1))
        dsd.observe(step(0, 1) if number < 20 else step(*(4, 0) if lengths[-1] else (0, 0)), NOT_LOOKED_AT)
    assert INTERVAL == 20
    assert [len(set(lengths[at : at + 20])) for at in (0, 20, 40)] == [1, 1, 1]
    assert lengths[0] > 0 and lengths[20] == lengths[40] == 0


def test_a_batch_that_shrinks_speculates_again():
    """Verification is free up to 16 tokens, then by the token."""
    dsd = Dsd(table((16, 216), (1.0, 201.0)))
    assert [dsd.best_length(n) for n in (16, 8, 4, 2, 1)] == [0, 1, 3, 6, 6]


def test_it_selects_the_first_drafts_of_each():
    dsd = Dsd(table((16, 216), (1.0, 201.0)))
    assert dsd.num_drafts(4) == 3
    ids = torch.zeros(4, 3, dtype=torch.int64)
    drafts = Drafts(ids, ids.float(), torch.tensor([3, 0, 2, 3]))
    assert dsd.select(drafts, 4).lens.tolist() == [3, 0, 2, 3]


@pytest.mark.parametrize(
    ("costs", "length", "text"),
    [
        (FREE, -1, "length: expected 0 to 256 drafts, got -1"),
        (FREE, 7, "length: expected 0 to 6 drafts, got 7"),
        (table(draft_seconds=(0.0,)), 6, "length: expected 0 to 0 drafts, got 6"),
    ],
)
def test_bad_input(costs, length, text):
    with pytest.raises(ValueError, match=text):
        Dsd(costs, length)


@pytest.mark.parametrize(("costs", "length"), [(FREE, 6), (BY_THE_TOKEN, 0)], ids=["favours", "forbids"])
@pytest.mark.parametrize("batch_size", [2, 5])
def test_whole_runs(costs, length, batch_size):
    run = generate(
        target(),
        PROMPTS,
        NEW_TOKENS,
        drafter=ModelDrafter(noisy_copy(noise=0.02)),
        policy=Dsd(costs),
        batch_size=batch_size,
    )
    assert run.outputs == transformers_generate(PROMPTS, NEW_TOKENS)
    # Less than six where a request has less than seven tokens to go.
    assert max(step.verified / step.requests for step in run.steps) == length
    assert all(step.verified == step.drafted for step in run.steps), "one length for all: none is made in vain"


@pytest.mark.parametrize(("noise", "longer"), [(0, True), (2.0, False)], ids=["right", "wrong"])
def test_a_run_in_which_it_learns(noise, longer):
    """From a drafter that is always right to one that never is: the second decision is by what was accepted."""
    prompts, costs = random_prompts(4, seed=8), table((1, 7), (1.0, 2.1))
    dsd = Dsd(costs)
    first = dsd.best_length(1)
    assert 0 < first < 6
    run = generate(target(), prompts, 160, drafter=ModelDrafter(noisy_copy(noise=noise)), policy=dsd)
    assert run.outputs == transformers_generate(prompts, 160)
    verified = [step.verified for step in run.steps]
    assert len(verified) > 2 * INTERVAL or longer
    assert set(verified[:INTERVAL]) == {first}
    later = verified[INTERVAL : INTERVAL + 3]
    assert later == ([6] * 3 if longer else [0] * 3)
