"""Policies in turn, the run that stands for several, and texts compared with plain decoding."""

from __future__ import annotations

import pytest
import torch
from tiny_models import VOCAB_SIZE, random_prompts, target, transformers_generate

from tetris_decode.decoder import Generation
from tetris_decode.live import Difference, decode_in_turn, differences, median_run
from tetris_decode.metrics import Metrics, RequestTimes, Step
from tetris_decode.policies import NO_SPECULATION, FixedLength

PROMPTS = random_prompts(5, 1, 9, 20)


def run_of(seconds: float) -> Generation:
    """Two steps of one request, three tokens, in this time."""
    steps = [Step(1, 1, 1, accepted, 1, 0, 1 + accepted, 0.0, 0.0, seconds / 2) for accepted in (0, 1)]
    return Generation([[1, 2, 3, 4]], 0.5, steps, [RequestTimes(0.0, 0.5, 0.5 + seconds, 4)])


def test_policies_are_decoded_in_turn():
    policies = {"plain": NO_SPECULATION, "fixed": FixedLength(2)}
    seen = list(decode_in_turn(policies, 2, lambda name, policy: (name, policy)))
    assert seen == 2 * [(name, (name, policy)) for name, policy in policies.items()]


@pytest.mark.parametrize(
    ("seconds", "median"), [([3.0], 3.0), ([3.0, 1.0, 2.0], 2.0), ([1.0, 2.0], 2.0), ([4.0, 1.0, 3.0, 2.0], 3.0)]
)
def test_the_median_run_stands_for_all_of_it(seconds, median):
    runs = [run_of(s) for s in seconds]
    [its] = [run for run, s in zip(runs, seconds, strict=True) if s == median]
    assert median_run(runs) == Metrics.of(its.steps, its.requests)
    assert median_run(runs).throughput == pytest.approx(3 / median)


def test_a_difference_is_found_with_its_gap():
    plain = transformers_generate(PROMPTS, 6)
    other = [list(output) for output in plain]
    other[2][3] = (other[2][3] + 1) % VOCAB_SIZE
    with torch.inference_mode():
        logits = target()(torch.tensor([PROMPTS[2] + plain[2][:3]])).logits[0, -1]
    expected, got = logits[plain[2][3]].item(), logits[other[2][3]].item()
    [found] = differences(target(), PROMPTS, plain, other)
    assert found == Difference(2, 3, pytest.approx(expected - got), pytest.approx(max(expected, got)))
    assert found.logit_gap > 0


def test_a_text_that_stops_early_is_an_error():
    plain = transformers_generate(PROMPTS, 6)
    with pytest.raises(ValueError, match="outputs: expected a text of 6 tokens, got 4 of the same"):
        differences(target(), PROMPTS, plain, [*plain[:-1], plain[-1][:4]])
