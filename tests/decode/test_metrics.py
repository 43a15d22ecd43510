"""What a run is measured by, against counting with lists and fractions."""

from __future__ import annotations

import random
from dataclasses import asdict, fields
from fractions import Fraction

import pytest
from tiny_models import NEW_TOKENS, PROMPTS, noisy_copy, target, transformers_generate

from tetris_decode.decoder import generate
from tetris_decode.draft_model import ModelDrafter
from tetris_decode.metrics import Metrics, RequestTimes, Step, Timeline
from tetris_decode.policies import FixedLength, Tetris

PER_STEP = ["steps", "tokens", "drafted", "verified", "accepted", "throughput", "tokens_per_verification"]
PER_STEP += ["target_efficiency", "draft_share", "select_share", "step_seconds"]


def step(**counts) -> Step:
    nothing = dict.fromkeys(Step._fields, 0) | {"requests": 1, "emitted": 1, "seconds": 1.0}
    return Step(**(nothing | counts))


def once(**times) -> RequestTimes:
    return RequestTimes(**({"admitted": 0.0, "first": 1.0, "last": 1.0, "tokens": 1} | times))


def percentile(values: list[Fraction], part: Fraction) -> Fraction:
    """On the straight line between the two nearest ranks."""
    ranked = sorted(values)
    at = part * (len(ranked) - 1)
    low = int(at)
    return ranked[low] + (at - low) * (ranked[min(low + 1, len(ranked) - 1)] - ranked[low])


@pytest.mark.parametrize("seed", range(20))
def test_random_runs(seed):
    """Seconds in 1/64: exact in both."""
    rng = random.Random(seed)
    steps, requests = [], []
    for _ in range(rng.choice([1, 2, 7])):
        running = rng.randint(1, 5)
        verified = rng.randint(0, 4 * running)
        accepted = rng.randint(0, verified)
        drafting, selecting, rest = (rng.randint(1, 64) / 64 for _ in range(3))
        steps.append(
            step(
                requests=running,
                drafted=verified + rng.randint(0, 3),
                verified=verified,
                accepted=accepted,
                emitted=rng.randint(0, accepted + running),
                draft_seconds=drafting,
                select_seconds=selecting,
                seconds=drafting + selecting + rest,
            )
        )
    for _ in range(rng.choice([1, 2, 30])):
        first = rng.randint(1, 99) / 64
        tokens = rng.randint(1, 4)
        requests.append(RequestTimes(0.0, first, first + (tokens > 1) * rng.randint(1, 99) / 64, tokens))

    seconds, emitted, verified, accepted = (
        sum(Fraction(getattr(s, name)) for s in steps) for name in ("seconds", "emitted", "verified", "accepted")
    )
    running = sum(s.requests for s in steps)
    per_token = [(Fraction(t.last) - Fraction(t.first)) / (t.tokens - 1) for t in requests if t.tokens >= 2]
    latencies = [Fraction(t.last) for t in requests]
    times = sorted(Fraction(s.seconds) for s in steps)
    expected = {
        "steps": len(steps),
        "tokens": emitted,
        "drafted": sum(s.drafted for s in steps),
        "verified": verified,
        "accepted": accepted,
        "throughput": emitted / seconds,
        "tokens_per_verification": emitted / running,
        "success_rate": accepted / verified if verified else None,
        "target_efficiency": emitted / (verified + running),
        "draft_share": sum(Fraction(s.draft_seconds) for s in steps) / seconds,
        "select_share": sum(Fraction(s.select_seconds) for s in steps) / seconds,
        "step_seconds": (times[(len(times) - 1) // 2] + times[len(times) // 2]) / 2,
        "time_per_output_token": sum(per_token) / len(per_token) if per_token else None,
        "time_per_output_token_p99": percentile(per_token, Fraction(99, 100)) if per_token else None,
        "latency": sum(latencies) / len(latencies),
        "latency_p99": percentile(latencies, Fraction(99, 100)),
    }
    # Requests may come from a generator, which can be read once only.
    measured = asdict(Metrics.of(steps, (times for times in requests)))
    assert measured.keys() == expected.keys()
    for name, value in expected.items():
        assert measured[name] == (None if value is None else pytest.approx(float(value), rel=1e-12)), name


def test_no_step_at_all():
    """Each request ended with its first token."""
    metrics = asdict(Metrics.of([], [once(last=2.0), once(last=4.0)]))
    assert [metrics[name] for name in PER_STEP] == [0] * len(PER_STEP)
    assert metrics["success_rate"] is metrics["time_per_output_token"] is metrics["time_per_output_token_p99"] is None
    assert metrics["latency"] == 3.0


def test_plain_decoding():
    metrics = Metrics.of([step(requests=4, emitted=4), step(requests=2, emitted=2)], [once()])
    assert metrics.tokens_per_verification == metrics.target_efficiency == 1
    assert metrics.success_rate is None, "nothing was verified"


def test_everything_accepted_or_nothing():
    all_right = Metrics.of([step(requests=2, drafted=8, verified=8, accepted=8, emitted=10)], [once()])
    assert (all_right.success_rate, all_right.target_efficiency) == (1, 1)
    all_wrong = Metrics.of([step(requests=2, drafted=8, verified=8, emitted=2, rejected=2)], [once()])
    assert (all_wrong.success_rate, all_wrong.target_efficiency) == (0, 0.2)


def test_one_request_of_two_tokens():
    metrics = Metrics.of([step()], [once(first=1.0, last=1.5, tokens=2)])
    assert metrics.time_per_output_token == metrics.time_per_output_token_p99 == 0.5
    assert metrics.latency == metrics.latency_p99 == 1.5


def test_a_run_of_no_request_is_refused():
    with pytest.raises(ValueError, match="requests: expected at least one, got none"):
        Metrics.of([step()], [])


def test_a_timeline():
    timeline = Timeline()
    timeline.admit([0, 1], 2.0)
    timeline.advance(1.0, [(0, 3), (1, 0)])
    timeline.admit([2], 0.5)
    timeline.advance(1.0, [(2, 1), (0, 0)])
    timeline.advance(1.0, [])
    assert timeline.seconds == 5.5
    assert timeline.requests == {
        0: RequestTimes(admitted=0.0, first=2.0, last=3.0, tokens=4),
        1: RequestTimes(admitted=0.0, first=2.0, last=2.0, tokens=1),
        2: RequestTimes(admitted=3.0, first=3.5, last=4.5, tokens=2),
    }, "a step in which a request gets nothing does not move its last token"


@pytest.mark.parametrize("policy", [FixedLength(3), Tetris(1, 4), Tetris(0.6, 4)], ids=str)
@pytest.mark.parametrize("batch_size", [2, 5])
def test_a_real_run(policy, batch_size):
    """Counts of a greedy run, from its texts alone."""
    run = generate(
        target(), PROMPTS, NEW_TOKENS, drafter=ModelDrafter(noisy_copy()), policy=policy, batch_size=batch_size
    )
    metrics = Metrics.of(run.steps, run.requests)
    texts = transformers_generate(PROMPTS, NEW_TOKENS)
    assert metrics.tokens == sum(map(len, texts)) - len(texts), "one came of the prompt"
    assert metrics.accepted == metrics.tokens - sum(step.requests for step in run.steps), "none ends early"
    assert [times.tokens for times in run.requests] == [len(text) for text in texts]
    assert max(times.last for times in run.requests) == pytest.approx(
        run.prefill_seconds + sum(step.seconds for step in run.steps)
    )
    assert 0 < metrics.target_efficiency < 1 < metrics.tokens_per_verification
    assert metrics.latency_p99 <= max(times.last for times in run.requests)
    for step in run.steps:
        assert step.accepted + step.rejected <= step.verified
        assert step.rejected + step.coupled <= step.requests, "the last token of a request is one or the other"


def test_rejected_drafts_are_those_that_were_tested():
    """Of a drafter that is always right none; of one that is always wrong one in each verification with a draft."""
    right = generate(
        target(), PROMPTS, NEW_TOKENS, drafter=ModelDrafter(noisy_copy(noise=0)), policy=FixedLength(3)
    ).steps
    assert sum(step.accepted for step in right) > 0 == sum(step.rejected for step in right)

    # Greedy, so the second most probable token is never the right one.
    class Wrong(ModelDrafter):
        def propose(self, batch, num_drafts):
            drafts = super().propose(batch, num_drafts)
            return drafts._replace(ids=(drafts.ids + 1) % self.vocab_size)

    wrong = generate(target(), PROMPTS, NEW_TOKENS, drafter=Wrong(noisy_copy(noise=0)), policy=FixedLength(3)).steps
    for step in wrong:
        # The last token of a request has no draft.
        assert step.accepted == 0 and step.rejected == (step.requests if step.drafted else 0)
    assert wrong[0].rejected == len(PROMPTS)


def test_every_quantity_has_its_line():
    """In the docstring of the class, which is where they are defined."""
    for field in fields(Metrics):
        assert field.name in (Metrics.__doc__ or ""), field.name
