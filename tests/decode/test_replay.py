"""The replay against plain loops and the heap of the oracle, and what must hold of any comparison."""

from __future__ import annotations

import dataclasses

import numpy as np
import oracle
import pytest
from made_runs import head, made_run

from tetris_decode.replay import SEED, Comparison, compare, paired_gain
from tetris_decode.simulate import Replay, make_queue
from tetris_decode.traces import Run, load_runs

RUNS = load_runs()


def replay_in_loops(run: Run, batch_size: int, per_request: float, offered: int | None) -> tuple[int, int, int]:
    """Verifications, drafts verified and drafts accepted, under TETRIS, or under a fixed length if none is offered."""
    waiting = [int(r) for r in make_queue(run.num_requests, run.num_requests, SEED)]
    starts = [int(run.num_rows[:r].sum()) for r in range(run.num_requests)]
    slots: list[tuple[int, int] | None] = [None] * batch_size
    verifications = verified = accepted = 0
    while True:
        for slot, held in enumerate(slots):
            while held is None and waiting:
                request = waiting.pop(0)
                held = slots[slot] = (request, 1) if run.num_tokens[request] > 1 else None
        running = [slot for slot in range(batch_size) if slots[slot]]
        if not running:
            return verifications, verified, accepted
        rows, lens = [], []
        for slot in running:
            request, tokens = slots[slot]
            rows.append(starts[request] + tokens - 1)
            lens.append(min(offered or int(per_request), int(run.limits[request]) - tokens - 1))
        if offered:
            logs = [[float(x) for x in run.log_q[row][:length]] for row, length in zip(rows, lens, strict=True)]
            lens = oracle.greedy(oracle.batch_keys(logs), round(per_request * len(running)))
        for slot, row, length in zip(running, rows, lens, strict=True):
            request, tokens = slots[slot]
            count = 0
            while count < length and run.accepted[row][count]:
                count += 1
            verified, accepted, verifications = verified + length, accepted + count, verifications + 1
            ends = tokens + count + 1 >= run.num_tokens[request]
            slots[slot] = None if ends else (request, tokens + count + 1)


@pytest.mark.parametrize("name", RUNS)
@pytest.mark.parametrize(("batch_size", "k", "extra"), [(4, 1, 2), (7, 2, 2), (5, 3, 1), (8, 4, 8), (6, 0.5, 2)])
def test_numbers_are_those_of_plain_loops(name, batch_size, k, extra):
    run = head(RUNS[name], 9)
    result = compare(Replay(run), batch_size=batch_size, drafts_per_request=k, extra=extra)
    offered = min(-int(-k // 1) + extra, 8)
    assert result.drafts_offered == offered
    verifications, verified, accepted = replay_in_loops(run, batch_size, k, offered)
    tokens = int(run.num_rows.sum())

    assert result.verifications == verifications
    assert result.tetris.drafts_verified == verified
    assert result.tetris.accepted_per_verification == pytest.approx(accepted / verifications)
    assert result.tetris.tokens_per_verification == pytest.approx(tokens / verifications)
    assert result.tetris.success_rate == pytest.approx(accepted / verified)
    if k == 0.5:
        assert result.fixed is result.accepted_gain is result.tokens_gain is None
        return
    fixed = replay_in_loops(run, batch_size, k, None)
    assert result.fixed.drafts_verified == fixed[1]
    assert result.fixed.accepted_per_verification == pytest.approx(fixed[2] / fixed[0])
    assert result.fixed.success_rate == pytest.approx(fixed[2] / fixed[1])
    gain_in_accepted = (accepted / verifications) / (fixed[2] / fixed[0]) - 1
    assert result.accepted_gain.percent == pytest.approx(100 * gain_in_accepted)
    assert result.tokens_gain.percent == pytest.approx(100 * (fixed[0] / verifications - 1))


def test_budget_goes_where_drafts_survive():
    # Request 0 is sure of its drafts and right, request 1 is neither.
    sure, unsure = [-0.01] * 8, [-3.0] * 8
    run = made_run([sure] * 60 + [unsure] * 12, [[1] * 8] * 60 + [[0] * 8] * 12, [61, 13])
    result = compare(Replay(run), batch_size=2, drafts_per_request=2, extra=2)
    # Five tokens a step for the first; the second one has the budget for itself when that has ended.
    assert result.verifications == 12 + 12
    assert result.fixed.accepted_per_verification == pytest.approx(40 / 32)
    assert result.tetris.accepted_per_verification == pytest.approx(48 / 24)
    assert result.tetris.success_rate > 0.9 > result.fixed.success_rate
    assert result.tokens_gain.percent == pytest.approx(100 * (32 / 24 - 1))


@pytest.mark.parametrize(("batch_size", "k", "extra"), [(1, 3, 0), (8, 2, 0), (8, 8, 2)])
def test_without_a_choice_tetris_is_the_fixed_length(batch_size, k, extra):
    run = head(RUNS["layer-skip@T0"], 8)
    result = compare(Replay(run), batch_size=batch_size, drafts_per_request=k, extra=extra)
    assert result.tetris == result.fixed
    assert result.accepted_gain.percent == result.accepted_gain.low == result.accepted_gain.high == 0.0


def test_a_larger_budget_takes_fewer_verifications():
    replay = Replay(RUNS["ngram@T0"])
    counts = [compare(replay, batch_size=16, drafts_per_request=k, extra=8).verifications for k in (0.5, 1, 2, 4, 8)]
    assert counts == sorted(counts, reverse=True)


@pytest.mark.parametrize("name", RUNS)
def test_gain_is_outside_of_chance_at_one_draft_per_request(name):
    gain = compare(Replay(RUNS[name]), batch_size=32, drafts_per_request=1, extra=2).accepted_gain
    assert 0 < gain.low < gain.percent < gain.high


def test_nothing_accepted_means_no_gain_is_stated():
    run = made_run([[-1.0] * 8] * 4, [[0] * 8] * 4, [3, 3])
    result = compare(Replay(run), batch_size=2, drafts_per_request=1, extra=2)
    assert result.accepted_gain is None
    assert result.tokens_gain.percent == 0.0


def test_interval_is_that_of_a_bootstrap_in_loops():
    rng = np.random.default_rng(3)
    verifications = rng.integers(20, 40, 30)
    before = np.stack([rng.integers(10, 30, 30), verifications + rng.integers(0, 5, 30)], axis=1)
    after = np.stack([before[:, 0] + rng.integers(0, 9, 30), verifications], axis=1)
    gain = paired_gain(before, after)
    ratios = []
    for _ in range(2000):
        (a, b), (c, d) = (side[rng_rows].sum(0) for rng_rows in [rng.integers(0, 30, 30)] for side in (before, after))
        ratios.append(100 * ((c / d) / (a / b) - 1))
    # Two bootstraps of 2000: the 2.5 % quantile of a normal has a standard error of 0.015 widths in each.
    width = gain.high - gain.low
    assert gain.low == pytest.approx(np.quantile(ratios, 0.025), abs=0.05 * width)
    assert gain.high == pytest.approx(np.quantile(ratios, 0.975), abs=0.05 * width)


def test_the_same_call_gives_the_same_numbers():
    def once() -> Comparison:
        return compare(Replay(head(RUNS["ngram@T0.7"], 8)), batch_size=4, drafts_per_request=2, extra=2)

    assert dataclasses.asdict(once()) == dataclasses.asdict(once())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"batch_size": 0}, "batch size: expected 1 to 9, the recorded requests, got 0"),
        ({"batch_size": 10}, "batch size: expected 1 to 9, the recorded requests, got 10"),
        ({"drafts_per_request": 0}, "drafts per request: expected more than 0, up to 8, got 0"),
        ({"drafts_per_request": 8.5}, r"drafts per request: expected more than 0, up to 8, got 8\.5"),
        ({"drafts_per_request": float("nan")}, "drafts per request: expected more than 0, up to 8, got nan"),
        ({"extra": -1}, "extra: expected 0 or more, got -1"),
    ],
)
def test_wrong_arguments_are_refused(changed, message):
    arguments = {"batch_size": 8, "drafts_per_request": 1, "extra": 2} | changed
    with pytest.raises(ValueError, match=message):
        compare(Replay(head(RUNS["ngram@T0.7"], 9)), **arguments)
