"""The policy that calibrates scores for another: what that one sees, what is learned, and whole runs."""

from __future__ import annotations

import math

import pytest
import torch
from tiny_models import NEW_TOKENS, PROMPTS, noisy_copy, target, transformers_generate

from tetris_decode.decoder import generate
from tetris_decode.draft_model import ModelDrafter
from tetris_decode.drafting import Drafts
from tetris_decode.metrics import Step
from tetris_decode.policies import Calibrated, FixedLength, Outcome, Tetris
from tetris_decode.record import record
from tetris_decode.simulate import simulate
from tetris_kernels import Calibration, CostTable, Uncalibrated

STEP = Step(2, 8, 3, 2, 1, 0, 4, 0.0, 0.0, 1.0)
COSTS = CostTable({}, (1, 1001), (1.0, 1001.0), (0.0,) * 9)


class Watching(Tetris):
    """What it is shown."""

    def __init__(self, *arguments):
        super().__init__(*arguments)
        object.__setattr__(self, "seen", [])

    def select(self, drafts, num_active):
        self.seen.append(drafts.logprobs)
        return super().select(drafts, num_active)

    def observe(self, step, outcome):
        self.seen.append(outcome.drafts.logprobs)


def drafts(kind: str = "token") -> Drafts:
    logprobs = torch.tensor([[-0.1, -0.2, -0.3, -0.4], [-1.0, -0.5, -0.2, -0.1]])
    return Drafts(torch.ones(2, 4, dtype=torch.int64), logprobs, torch.tensor([4, 3]), kind=kind)


def outcome(of: Drafts) -> Outcome:
    """The first request's two drafts accepted, the next one by the coupled bonus; the second one's first rejected."""
    counts = torch.tensor([3, 1], dtype=torch.int32)
    return Outcome(of, torch.tensor([2, 1], dtype=torch.int32), counts, torch.tensor([True, False]))


def test_until_it_is_warm_everything_is_verified():
    calibration = Calibration(4, warmup=2)
    policy = Calibrated(Tetris(0.5, 4), calibration)
    for _ in range(2):
        assert policy.num_drafts(1) == 4 and policy.select(drafts(), 2).lens.tolist() == [4, 3]
        policy.observe(STEP, outcome(drafts()))
    assert policy.num_drafts(1) == 0 and policy.num_drafts(4) == 4 == policy.length
    assert policy.select(drafts(), 2).lens.sum() == 1


def test_it_learns_raw_scores_and_shows_calibrated_ones():
    calibration, expected = Calibration(4, warmup=0, refit_every=1), Calibration(4, warmup=0, refit_every=1)
    inner = Watching(1.0, 4)
    policy = Calibrated(inner, calibration)
    for _ in range(3):
        shown = expected(drafts().logprobs, kind="token")
        policy.select(drafts(), 2)
        policy.observe(STEP, outcome(drafts()))
        assert torch.equal(inner.seen[-2], shown) and torch.equal(inner.seen[-1], shown)
        of = outcome(drafts())
        expected.update(of.drafts.logprobs, of.lens, of.counts, of.coupled, kind="token", draft_lens=of.drafts.lens)
        for name in ("counts", "weights"):
            assert torch.equal(calibration.state_dict()[name], expected.state_dict()[name])
    counts = Calibration(4, warmup=0, half_life=math.inf)
    Calibrated(inner, counts).observe(STEP, outcome(drafts()))
    # Rejected and accepted, by position; the coupled one is the third.
    assert counts.state_dict()["counts"].sum(2).tolist() == [[1, 0, 0, 0], [1, 1, 1, 0]]


def test_scores_of_another_kind_are_refused():
    policy = Calibrated(Tetris(1, 4), Calibration(4, kind="top", warmup=0))
    policy.select(drafts("top"), 2)
    for call in (lambda: policy.select(drafts(), 2), lambda: policy.observe(STEP, outcome(drafts()))):
        with pytest.raises(ValueError, match="kind: expected 'top', which this calibration is of, got 'token'"):
            call()


@pytest.mark.parametrize("warmup", [0, 3])
def test_without_drafts_there_is_nothing_to_learn(warmup):
    """As where the drafter was not asked: then there is no kind of score either."""
    calibration = Calibration(4, kind="top", warmup=warmup)
    policy, none = Calibrated(Tetris(1, 4), calibration), Drafts.none(torch.zeros(2, 9))
    assert policy.select(none, 2).lens.tolist() == [0, 0]
    policy.observe(STEP, Outcome(none, *torch.ones(2, 2, dtype=torch.int32), torch.zeros(2, dtype=torch.bool)))
    assert calibration.updates == 0


def test_the_identity_changes_nothing():
    run = record(target(), PROMPTS, NEW_TOKENS, ModelDrafter(noisy_copy()), batch_size=3)
    plain = simulate(run, Tetris(1, 6), COSTS, batch_size=3)
    same = simulate(run, Calibrated(Tetris(1, 6), Uncalibrated()), COSTS, batch_size=3)
    assert same.steps == plain.steps


@pytest.mark.parametrize("score", ["token", "top", "collision"])
@pytest.mark.parametrize("policy", [FixedLength(2), Tetris(0.5, 4), Tetris(2, 4)], ids=str)
def test_greedy_output_is_that_of_plain_decoding(policy, score):
    calibration = Calibration(4, kind=score, warmup=3, refit_every=2)
    run = generate(
        target(),
        PROMPTS,
        NEW_TOKENS,
        batch_size=3,
        drafter=ModelDrafter(noisy_copy(), score=score),
        policy=Calibrated(policy, calibration),
    )
    assert run.outputs == transformers_generate(PROMPTS, NEW_TOKENS)
    assert calibration.is_warm and calibration.slope.item() != 1


@pytest.mark.parametrize("warmup", [0, 4])
def test_a_greedy_replay_learns_what_the_live_decoder_learns(warmup):
    """Which drafts were tested, and what came of them: all counts, but for scores on the border of two bins."""
    live, replayed = (Calibration(4, warmup=warmup, half_life=math.inf) for _ in range(2))
    drafter = ModelDrafter(noisy_copy())
    generate(target(), PROMPTS, NEW_TOKENS, batch_size=3, drafter=drafter, policy=Calibrated(FixedLength(2), live))
    run = record(target(), PROMPTS, NEW_TOKENS, drafter, batch_size=3, num_drafts=4)
    simulate(run, Calibrated(FixedLength(2), replayed), COSTS, batch_size=3)
    counts = [calibration.state_dict()["counts"].sum(2) for calibration in (live, replayed)]
    assert torch.equal(*counts) and (counts[0][:, :2] > 0).all()
    assert live.updates == replayed.updates
