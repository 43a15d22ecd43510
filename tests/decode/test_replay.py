"""The replay against plain loops and the heap of the oracle, and what must hold of any comparison."""

from __future__ import annotations

import dataclasses

import numpy as np
import oracle
import pytest

from tetris_decode.replay import Comparison, batch_rows, compare, paired_gain, tetris_lens
from tetris_decode.traces import Run, load_runs

RUNS = load_runs()


def head(run: Run, requests: int) -> Run:
    """The first requests of a run."""
    rows = run.num_steps[:requests].sum()
    return Run(run.name, run.num_steps[:requests], run.log_q[:rows], run.accepted[:rows])


def made_run(log_q: list[list[float]], accepted: list[list[int]], num_steps: list[int]) -> Run:
    return Run("made@T0", np.array(num_steps), np.array(log_q, np.float32), np.array(accepted, np.bool_))


def replay_in_loops(run: Run, batch_size: int, budget: int, offered: int) -> tuple[list[int], list[int], int]:
    """Accepted drafts of each row under the fixed length and under TETRIS, and the drafts TETRIS verified."""
    steps = len(run.log_q) // batch_size
    fixed, tetris, verified = [], [], 0
    for step in range(steps):
        rows = [slot * steps + step for slot in range(batch_size)]
        keys = oracle.batch_keys([[float(x) for x in run.log_q[row][:offered]] for row in rows])
        for lens, counts in (([budget // batch_size] * batch_size, fixed), (oracle.greedy(keys, budget), tetris)):
            for row, length in zip(rows, lens, strict=True):
                count = 0
                while count < length and run.accepted[row][count]:
                    count += 1
                counts.append(count)
        verified += sum(oracle.greedy(keys, budget))
    return fixed, tetris, verified


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize(("batch_size", "k", "extra"), [(4, 1, 2), (7, 2, 2), (5, 3, 1), (8, 4, 8), (6, 0.5, 2)])
def test_numbers_are_those_of_plain_loops(name, batch_size, k, extra):
    run = head(RUNS[name], 9)
    result = compare(run, batch_size=batch_size, drafts_per_request=k, extra=extra)
    fixed, tetris, verified = replay_in_loops(run, batch_size, int(k * batch_size), min(-int(-k // 1) + extra, 8))

    assert result.steps * batch_size == len(tetris)
    assert result.tetris.drafts_verified == verified == int(k * batch_size) * result.steps
    assert result.tetris.accepted_per_verification == pytest.approx(sum(tetris) / len(tetris))
    assert result.tetris.tokens_per_verification == pytest.approx(sum(n + 1 for n in tetris) / len(tetris))
    assert result.tetris.success_rate == pytest.approx(sum(tetris) / verified)
    if k == 0.5:
        assert result.fixed is result.accepted_gain is result.tokens_gain is None
        return
    assert result.fixed.drafts_verified == verified
    assert result.fixed.accepted_per_verification == pytest.approx(sum(fixed) / len(fixed))
    assert result.fixed.success_rate == pytest.approx(sum(fixed) / verified)
    assert result.accepted_gain.percent == pytest.approx(100 * (sum(tetris) / sum(fixed) - 1))
    gain_in_tokens = (sum(tetris) + len(tetris)) / (sum(fixed) + len(fixed)) - 1
    assert result.tokens_gain.percent == pytest.approx(100 * gain_in_tokens)


def test_every_step_verifies_exactly_the_budget():
    run = RUNS["ngram@T0.7"]
    rows = batch_rows(len(run.log_q), 16)
    for budget, offered in ((8, 3), (16, 3), (64, 6), (128, 8)):
        lens = tetris_lens(run.log_q[rows, :offered], budget)
        assert (lens.sum(1) == budget).all()
        assert lens.min() >= 0 and lens.max() <= offered


@pytest.mark.parametrize(("num_rows", "batch_size"), [(12, 3), (13, 3), (1342, 32), (5, 5), (5, 1)])
def test_rows_are_replayed_once_and_in_order(num_rows, batch_size):
    rows = batch_rows(num_rows, batch_size)
    assert rows.shape == (num_rows // batch_size, batch_size)
    assert len(np.unique(rows)) == rows.size > num_rows - batch_size
    assert (np.diff(rows, axis=0) == 1).all()
    assert rows.min() == 0 and rows.max() < num_rows


def test_budget_goes_where_drafts_survive():
    # Request 0 is sure of its drafts and right, request 1 is neither.
    sure, unsure = [-0.01] * 8, [-3.0] * 8
    run = made_run([sure] * 4 + [unsure] * 4, [[1] * 8] * 4 + [[0] * 8] * 4, [4, 4])
    result = compare(run, batch_size=2, drafts_per_request=2, extra=2)
    assert result.steps == 4 and result.drafts_offered == 4
    assert result.fixed.accepted_per_verification == 1.0
    assert result.tetris.accepted_per_verification == 2.0
    assert (result.fixed.success_rate, result.tetris.success_rate) == (0.5, 1.0)
    assert result.accepted_gain.percent == 100.0
    assert result.tokens_gain.percent == 50.0


@pytest.mark.parametrize(("batch_size", "k", "extra"), [(1, 3, 2), (8, 2, 0), (8, 8, 2)])
def test_without_a_choice_tetris_is_the_fixed_length(batch_size, k, extra):
    result = compare(head(RUNS["layerskip26of30@T0"], 8), batch_size=batch_size, drafts_per_request=k, extra=extra)
    assert result.tetris == result.fixed
    assert result.accepted_gain.percent == result.accepted_gain.low == result.accepted_gain.high == 0.0


def test_a_larger_budget_accepts_no_less():
    accepted = [
        compare(RUNS["distilled4L@T0"], batch_size=16, drafts_per_request=k, extra=8).tetris.accepted_per_verification
        for k in (0.5, 1, 1.5, 2, 4, 8)
    ]
    assert accepted == sorted(accepted)


@pytest.mark.parametrize("name", RUNS)
def test_gain_is_outside_of_chance_at_one_draft_per_request(name):
    gain = compare(RUNS[name], batch_size=32, drafts_per_request=1, extra=2).accepted_gain
    assert 0 < gain.low < gain.percent < gain.high


def test_nothing_accepted_means_no_gain_is_stated():
    run = made_run([[-1.0] * 8] * 4, [[0] * 8] * 4, [2, 2])
    result = compare(run, batch_size=2, drafts_per_request=1, extra=2)
    assert result.accepted_gain is None
    assert result.tokens_gain.percent == 0.0


def test_interval_is_that_of_a_bootstrap_in_loops():
    rng = np.random.default_rng(3)
    request = np.repeat(np.arange(12), 20)
    baseline = rng.integers(0, 3, request.size)
    other = baseline + (rng.random(request.size) < 0.05 * (1 + request % 4))
    gain = paired_gain(baseline, other, request)
    ratios = []
    for _ in range(2000):
        chosen = np.concatenate([np.flatnonzero(request == r) for r in rng.integers(0, 12, 12)])
        ratios.append(100 * (other[chosen].sum() / baseline[chosen].sum() - 1))
    # Two bootstraps of 2000: the 2.5 % quantile of a normal has a standard error of 0.015 widths in each.
    width = gain.high - gain.low
    assert gain.low == pytest.approx(np.quantile(ratios, 0.025), abs=0.05 * width)
    assert gain.high == pytest.approx(np.quantile(ratios, 0.975), abs=0.05 * width)


def test_the_same_call_gives_the_same_numbers():
    def once() -> Comparison:
        return compare(head(RUNS["ngram@T0.7"], 8), batch_size=4, drafts_per_request=2, extra=2)

    assert dataclasses.asdict(once()) == dataclasses.asdict(once())


def test_a_budget_that_floating_point_rounds_is_whole():
    result = compare(head(RUNS["ngram@T0.7"], 10), batch_size=10, drafts_per_request=1.1, extra=1)
    assert result.tetris.drafts_verified == 11 * result.steps


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 0}, "batch size: expected 1 to 48, the recorded requests, got 0"),
        ({"batch_size": 49}, "batch size: expected 1 to 48, the recorded requests, got 49"),
        ({"drafts_per_request": 0}, "drafts per request: expected more than 0, up to 8, got 0"),
        ({"drafts_per_request": 8.5}, r"drafts per request: expected more than 0, up to 8, got 8\.5"),
        ({"drafts_per_request": float("nan")}, "drafts per request: expected more than 0, up to 8, got nan"),
        ({"drafts_per_request": 0.3}, r"expected a whole number of drafts in a step, got 0\.3 x 8 requests = 2\.4"),
        ({"extra": -1}, "extra: expected 0 or more, got -1"),
    ],
)
def test_wrong_arguments_are_refused(changed, message):
    arguments = {"batch_size": 8, "drafts_per_request": 1, "extra": 2} | changed
    with pytest.raises(ValueError, match=message):
        compare(RUNS["ngram@T0.7"], **arguments)
