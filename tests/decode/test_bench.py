"""Policies side by side: lanes, their blocks and ratios, on a tiny model."""

from __future__ import annotations

import numpy as np
import pytest
from tiny_models import noisy_copy, random_prompts, target, transformers_generate

from tetris_decode.bench import WARM_UP, Lane, Queue, cross_chosen, ratio, rows, run_lanes
from tetris_decode.draft_model import ModelDrafter
from tetris_decode.metrics import Metrics
from tetris_decode.policies import NO_SPECULATION, FixedLength, Tetris

PROMPTS = random_prompts(5, 1, 9, 20, 3)
POLICIES = {"none": NO_SPECULATION, "fixed": FixedLength(2), "fixed 1": FixedLength(1), "tetris": Tetris(1, 4)}


def make_queue(length: int, batch_size: int, *, eos: tuple[int, ...] = ()) -> Queue:
    return Queue.running(target(), PROMPTS, length, 12, batch_size=batch_size, temperature=0.0, eos_token_ids=eos)


def make_lanes(queue: Queue, batch_size: int, temperature: float = 0.0) -> dict[str, Lane]:
    drafter = ModelDrafter(noisy_copy())
    options = {"batch_size": batch_size, "temperature": temperature, "eos_token_ids": ()}
    return {name: Lane(policy, target(), queue, drafter, **options) for name, policy in POLICIES.items()}


def test_a_queue_begins_in_the_middle_of_texts():
    queue = make_queue(9, 4)
    texts = transformers_generate(PROMPTS, 12)
    assert queue.prompts[:4] == [
        p + t[: 12 * i // 4] for i, (p, t) in enumerate(zip(PROMPTS[:4], texts[:4], strict=True))
    ]
    assert queue.prompts[4:] == [PROMPTS[i % 5] for i in range(4, 9)]
    assert queue.max_new_tokens == [12, 9, 6, 3] + [12] * 5


def test_a_text_that_ended_is_cut_before_its_end():
    texts = transformers_generate(PROMPTS, 12)
    eos = texts[3][0]
    queue = make_queue(6, 4, eos=(eos,))
    assert queue.prompts[3] == PROMPTS[3] and queue.max_new_tokens[3] == 12
    assert all(eos not in prompt[len(PROMPTS[i]) :] for i, prompt in enumerate(queue.prompts[:4]))


def test_lanes_take_turns_and_are_measured_by_block():
    queue = make_queue(400, 2)
    lanes = make_lanes(queue, 2)
    reports = []
    run_lanes(list(lanes.values()), blocks=3, block_seconds=0.1, on_block=lambda: reports.append(1))
    assert len(reports) == 3
    for lane in lanes.values():
        assert len(lane.throughputs) == 3
        assert sum(step.seconds for step in lane.decoder.steps[WARM_UP:]) >= 0.3, "each used its own time"
        assert all(step.requests == 2 for step in lane.decoder.steps), "the batch stays full"
    measured = {row.policy: row for row in rows(lanes, target(), queue, batch_size=2, temperature=0.0)}
    assert list(measured) == list(POLICIES)
    assert measured["none"].relative == (1, 1, 1) and measured["none"].metrics.tokens_per_verification == 1
    assert measured["tetris"].metrics.tokens_per_verification > 1
    best = max(("fixed", "fixed 1"), key=lambda name: measured[name].relative.median)
    assert measured[best].to_fixed == (1, 1, 1)
    for name, lane in lanes.items():
        steps = lane.decoder.steps[WARM_UP:]
        assert measured[name].metrics.tokens == sum(step.emitted for step in steps), "a warm-up does not count"
        assert measured[name].metrics.throughput == pytest.approx(
            sum(s.emitted for s in steps) / sum(s.seconds for s in steps)
        )
        assert measured[name].equal_texts == measured[name].texts > 0, "float32"
        ended = lane.texts
        assert all(len(ended[i]) == queue.max_new_tokens[i] for i in ended)
        expected = [transformers_generate([queue.prompts[i]], 12)[0][: len(ended[i])] for i in ended]
        assert [*ended.values()] == expected


def test_sampled_texts_are_not_compared():
    queue = make_queue(100, 2)
    lanes = make_lanes(queue, 2, temperature=0.7)
    run_lanes(list(lanes.values()), blocks=2, block_seconds=0.05)
    for row in rows(lanes, target(), queue, batch_size=2, temperature=0.7):
        assert (row.texts, row.equal_texts, row.largest_gap) == (0, 0, 0.0)


def test_a_queue_that_runs_out_is_refused():
    lanes = make_lanes(make_queue(4, 2), 2)
    with pytest.raises(ValueError, match="queue: expected requests enough to keep the batch full, got too few"):
        run_lanes(list(lanes.values()), blocks=2, block_seconds=9)


def test_ratios_are_paired():
    theirs = np.array([1.0, 10.0, 2.0, 5.0, 3.0])
    assert ratio(theirs * 1.5, theirs) == pytest.approx((1.5, 1.5, 1.5)), "however much they vary together"
    found = ratio(theirs * np.array([1.1, 1.2, 1.3, 1.4, 1.5]), theirs)
    assert found.median == pytest.approx(1.3) and found.low < 1.3 < found.high
    assert found.low >= 1.1 - 1e-9 and found.high <= 1.5 + 1e-9


def test_what_is_best_is_chosen_by_the_other_half_of_the_blocks():
    plain = np.array([1.0, 2.0, 1.0, 2.0, 1.0])
    lucky = plain * np.array([3.0, 1.0, 3.0, 1.0, 3.0])  # in the even blocks
    steady = plain * 2.0
    assert cross_chosen([lucky, steady], plain).tolist() == [2.0, 2.0, 2.0, 2.0, 2.0]
    assert cross_chosen([plain, lucky, steady], plain).tolist() == [2.0, 2.0, 2.0, 2.0, 2.0]
    assert cross_chosen([lucky], plain).tolist() == lucky.tolist()


def test_metrics_before_a_request_ended_are_of_the_running_ones():
    lane = make_lanes(make_queue(9, 3), 3)["none"]
    lane.begin()
    lane.step()
    lane.end_block()
    assert isinstance(lane.metrics, Metrics) and lane.metrics.steps == 1
