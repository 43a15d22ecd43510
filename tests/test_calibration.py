"""Calibration against the oracle: the curve, the fit, and what it learns of a known law."""

from __future__ import annotations

import math

import oracle_calibration as oracle
import pytest
import torch
from calibration_cases import EDGES, columns, counted, random_rows
from oracle_calibration import Row

from tetris_kernels import Calibration, Uncalibrated, select
from tetris_kernels.reference import calibration as reference

INF, NAN = math.inf, math.nan


def assert_is_the_maximum(calibration: Calibration, outcomes) -> None:
    gradient = oracle.gradient(
        outcomes, calibration.slope.item(), calibration.intercepts.tolist(), ridge=calibration.ridge
    )
    assert math.hypot(*gradient) / calibration.ridge < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_log_odds_and_the_curve(dtype):
    scores = torch.tensor([EDGES, EDGES[::-1]]).to(dtype)
    odds = reference.log_odds(scores)
    expected = [[oracle.log_odds(x) for x in row] for row in scores.tolist()]
    # exp and log of float32, at arguments of up to 16.
    torch.testing.assert_close(odds, torch.tensor(expected), rtol=2e-6, atol=2e-6)
    calibration = Calibration(len(EDGES))
    calibration.load_state_dict(
        calibration.state_dict() | {"weights": torch.linspace(0.7, -2, 1 + len(EDGES)).double()}
    )
    intercepts = calibration.intercepts.tolist()
    expected = [[oracle.calibrated(x, 0.7, b) for x, b in zip(r, intercepts, strict=True)] for r in scores.tolist()]
    got = calibration(scores, kind="token")
    assert got.dtype == torch.float32 and (got <= 0).all()
    torch.testing.assert_close(got, torch.tensor(expected), rtol=1e-5, atol=1e-6)


def test_what_knows_nothing_is_the_identity():
    scores = torch.tensor([[-1e-6, -0.01, -1.0, -9.0, -15.0, 0.0, -30.0, NAN]])
    got = Calibration(8)(scores, kind="token")[0].tolist()
    assert got[:5] == pytest.approx(scores[0, :5].tolist(), rel=1e-5, abs=1e-7)
    assert got[5:7] == pytest.approx([-math.exp(-16), -16.0], rel=1e-5) and math.isnan(got[7])
    assert select(Calibration(8)(scores, kind="token").mT, 7).lens.tolist() == [1, 1, 1, 1, 1, 1, 1, 0]


def test_scores_are_not_mutated_and_may_be_strided():
    base = torch.rand(6, 10).log()
    before = base.clone()
    calibration = Calibration(9)
    calibration.update(**columns(random_rows(3, 50, 9)), kind="token")
    calibration.refit()
    for scores in (
        base[:, :9],
        base.T[:, :6],
        base[::2, 1:9:3],
        base[:, :1].expand(6, 9),
        base[:1].expand(4, 10)[:, 1:],
    ):
        expected = calibration(scores.contiguous(), kind="token")
        assert torch.equal(calibration(scores, kind="token"), expected)
        one, other = Calibration(9), Calibration(9)
        outcome = columns([Row([0.0] * 9, 2, 3, True, 9)] * len(scores))
        one.update(**outcome | {"scores": scores}, kind="token")
        other.update(**outcome | {"scores": scores.contiguous()}, kind="token")
        assert torch.equal(one.state_dict()["counts"], other.state_dict()["counts"])
    assert torch.equal(base, before)


@pytest.mark.parametrize("ridge", [0.1, 1.0, 20.0])
@pytest.mark.parametrize(("seed", "num_rows", "num_drafts"), [(0, 1, 1), (1, 10, 3), (2, 400, 6)])
def test_a_fit_is_the_maximum(seed, num_rows, num_drafts, ridge):
    rows = random_rows(seed, num_rows, num_drafts)
    calibration = Calibration(num_drafts, half_life=INF, ridge=ridge)
    calibration.update(**columns(rows), kind="token")
    for _ in range(3):
        calibration.refit()
    assert_is_the_maximum(calibration, [(1.0, t) for row in rows for t in oracle.tested(row, "coupled")])


@pytest.mark.parametrize("weights", [[1, 0, 0], [-3, 5, -5], [0, 0, 0], [40, -30, 30]], ids=str)
@pytest.mark.parametrize("many", [1, 1e3, 1e6, 1e9])
@pytest.mark.parametrize("score", [0.0, -1e-4, -1.0, -INF])
def test_no_step_makes_a_fit_worse(score, many, weights):
    """From anywhere; also where all of many drafts of one score came out against it, and Newton's steps go astray."""
    outcomes = [(many, oracle.Tested(0, score, score == -INF)), (1.0, oracle.Tested(1, -0.5, True))]
    counts = torch.zeros(2, 2, reference.NUM_BINS, dtype=torch.float64)
    for weight, (position, value, accepted) in outcomes:
        counts[int(accepted), position, oracle.bin_of(value)] = weight
    fit, before = torch.tensor(weights, dtype=torch.float64), -INF
    for _ in range(30):
        value = oracle.log_posterior(outcomes, fit[0].item(), fit[1:].tolist(), 1.0)
        assert value >= before - 1e-11 * abs(before)
        fit, before = reference.fit(fit, counts, ridge=1.0, steps=1), value
    gradient = oracle.gradient(outcomes, fit[0].item(), fit[1:].tolist(), 1.0)
    assert math.hypot(*gradient) < 1e-15 * 16 * many + 1e-9, "rounding of the largest term"


@pytest.mark.parametrize("accepted", [False, True])
@pytest.mark.parametrize("value", [0.0, -1e-5, -0.7, -12.0, -INF, "spread"], ids=str)
def test_extreme_outcomes_stay_finite(value, accepted):
    """All rejected or all accepted, at scores that say the opposite or nothing."""
    spread = [x for x in EDGES if x <= 0]
    scores = [[value] * 3] * 2000 if value != "spread" else [[spread[i % len(spread)]] * 3 for i in range(2000)]
    rows = [Row(x, 3, 4 if accepted else 1, False, 3) for x in scores]
    calibration = Calibration(3, half_life=INF)
    calibration.update(**columns(rows), kind="token")
    for _ in range(5):
        calibration.refit()
    assert_is_the_maximum(calibration, [(1.0, t) for row in rows for t in oracle.tested(row, "coupled")])
    rates = calibration(torch.tensor(scores), kind="token").exp()
    # Nothing is known of later positions where the first was rejected.
    assert rates.min() > 0.9 if accepted else rates[:, 0].max() < 0.1


def test_forgetting_counts_half_after_a_half_life():
    rows, later = random_rows(7, 60, 4), random_rows(8, 60, 4)
    calibration = Calibration(4, half_life=3.0)
    calibration.update(**columns(rows), kind="token")
    for _ in range(2):
        # Nobody is there: nothing is learned, and nothing forgotten.
        calibration.update(**columns([row._replace(count=0) for row in later]), kind="token")
    assert calibration.state_dict()["counts"].tolist() == counted(rows, 4)
    for _ in range(3):
        calibration.update(**columns(later), kind="token")
    calibration.refit()
    calibration.refit()
    weights = [(0.5, rows), *((0.5 ** (age / 3), later) for age in range(3))]
    outcomes = [(weight, t) for weight, step in weights for row in step for t in oracle.tested(row, "coupled")]
    assert_is_the_maximum(calibration, outcomes)


def test_it_is_refitted_now_and_then_and_when_it_is_warm():
    calibration, moved = Calibration(3, warmup=5, refit_every=4), []
    for number in range(1, 13):
        assert calibration.is_warm == (number > 5)
        before = calibration.slope.item()
        calibration.update(**columns(random_rows(number, 20, 3)), kind="token")
        moved += [number] if calibration.slope.item() != before else []
    assert moved == [4, 5, 8, 12] and calibration.updates == 12
    assert Calibration(3, warmup=0).is_warm and not Calibration(3).is_warm


def drawn_law(slope: float, intercepts: list[float], steps: int, *, informative: bool = True) -> Calibration:
    """Learned from drafts that follow a known law, all verified."""
    generator = torch.Generator().manual_seed(11)
    calibration = Calibration(len(intercepts), kind="top", half_life=INF, warmup=0)
    for _ in range(steps):
        odds = 4 * torch.rand(256, len(intercepts), generator=generator) - 2
        rate = (slope * odds + torch.tensor(intercepts)).sigmoid()
        passes = torch.rand(rate.shape, generator=generator) < rate
        scores = torch.nn.functional.logsigmoid(odds if informative else torch.rand(odds.shape, generator=generator))
        counts = passes.int().cumprod(1).sum(1, dtype=torch.int32) + 1
        full = torch.full((256,), len(intercepts))
        calibration.update(scores, full, counts, torch.zeros(256, dtype=torch.bool), kind="top")
    calibration.refit()
    return calibration


@pytest.mark.parametrize(("slope", "intercepts"), [(1.0, [0.0, 0.0]), (0.5, [1.0, -0.5, 2.0]), (2.0, [3.0, 0.0])])
def test_a_known_law_is_found(slope, intercepts):
    calibration = drawn_law(slope, intercepts, 160)
    # Some 40,000 tests at the first position, a few thousand at the last: four standard errors are less than this.
    assert calibration.slope.item() == pytest.approx(slope, abs=0.1)
    assert calibration.intercepts.tolist() == pytest.approx(intercepts, abs=0.15)


def test_a_score_that_says_nothing_gives_the_rate_of_its_position():
    calibration = drawn_law(0.0, [1.0, -1.0], 100, informative=False)
    rates = calibration(torch.nn.functional.logsigmoid(torch.tensor([[0.1, 0.1], [0.9, 0.9]])), kind="top").exp()
    expected = torch.tensor([1.0, -1.0]).sigmoid().expand(2, 2)
    torch.testing.assert_close(rates, expected, atol=0.02, rtol=0)


def test_the_same_calls_give_the_same_bits():
    def learn(order) -> dict:
        calibration = Calibration(5, refit_every=2)
        for number in range(8):
            rows = random_rows(number, 30, 5)
            calibration.update(**columns([rows[r] for r in order]), kind="token")
        return calibration.state_dict()

    first, again, other_order = learn(range(30)), learn(range(30)), learn(range(29, -1, -1))
    for state in (again, other_order):
        assert torch.equal(state["counts"], first["counts"]) and torch.equal(state["weights"], first["weights"])


def test_a_saved_state_goes_on_as_the_original(tmp_path):
    one, other = Calibration(4, kind="top", warmup=2), Calibration(4, kind="top", warmup=2)
    for number in range(5):
        one.update(**columns(random_rows(number, 30, 4)), kind="top")
    torch.save(one.state_dict(), tmp_path / "state.pt")
    other.load_state_dict(torch.load(tmp_path / "state.pt"))
    assert other.is_warm and other.updates == 5
    for calibration in (one, other):
        for number in range(5, 20):
            calibration.update(**columns(random_rows(number, 30, 4)), kind="top")
    assert all(torch.equal(one.state_dict()[name], other.state_dict()[name]) for name in ("counts", "weights"))
    saved = one.state_dict()
    one.update(**columns(random_rows(1, 30, 4)), kind="top")
    assert not torch.equal(saved["counts"], one.state_dict()["counts"]), "a state is a copy"


def test_inference_mode_and_ordinary_calls_mix():
    rows = columns(random_rows(0, 20, 3))
    with torch.inference_mode():
        calibration = Calibration(3, warmup=1)
        calibration.update(**rows, kind="token")
    calibration.update(**rows, kind="token")
    scores = torch.rand(2, 3).log().requires_grad_()
    assert not calibration(scores, kind="token").requires_grad


def test_nothing_is_read_from_the_device():
    """Tensors on `meta` have no values: whatever asks for one, or for a size that depends on one, raises."""
    calibration = Calibration(4, device="meta", refit_every=1)
    step = {name: value.to("meta") for name, value in columns(random_rows(0, 20, 4)).items()}
    for _ in range(3):
        calibration.update(**step, kind="token")
    assert calibration(step["scores"], kind="token").shape == (20, 4)
    with pytest.raises(RuntimeError):
        calibration.slope.item()


@pytest.mark.parametrize("kind", ["token", "top", "collision"])
def test_prefix_only_is_what_the_scores_are(kind):
    for calibration in (Calibration(4, kind=kind), Uncalibrated(kind=kind)):
        assert calibration.kind == kind and calibration.prefix_only == (kind != "token")


def test_the_identity():
    identity, scores = Uncalibrated(kind="top"), torch.rand(3, 4).log()
    assert identity.is_warm and identity(scores, kind="top") is scores
    identity.update(**columns(random_rows(0, 3, 4)), kind="top")
    identity.load_state_dict(identity.state_dict())
    members = {name for name in dir(Uncalibrated) if not name.startswith("_")} | {"__call__"}
    assert members <= set(dir(Calibration))
