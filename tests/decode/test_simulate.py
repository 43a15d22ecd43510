"""The simulator against the live decoder, step by step, and against loops over single requests."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from tiny_models import NEW_TOKENS, PROMPTS, VOCAB_SIZE, noisy_copy, random_prompts, target, transformers_generate

from tetris_decode.decoder import generate
from tetris_decode.draft_model import ModelDrafter
from tetris_decode.goodput import Dsd
from tetris_decode.ngram import NgramDrafter
from tetris_decode.ngram_table import NgramTable
from tetris_decode.policies import NO_SPECULATION, FixedLength, Oracle, Tetris, Threshold
from tetris_decode.record import record
from tetris_decode.simulate import Simulation, make_queue, simulate
from tetris_decode.traces import Run
from tetris_kernels import CostTable

LIMITS = [NEW_TOKENS, 1, 5, NEW_TOKENS, 9]
# One token takes what two drafts take; a table that holds at all points.
COSTS = CostTable({}, (1, 1001), (1.0, 1001.0), tuple(0.25 * n for n in range(9)))
POLICIES = {
    "plain": lambda: NO_SPECULATION,
    "fixed 1": lambda: FixedLength(1),
    "fixed 3": lambda: FixedLength(3),
    "fixed 8": lambda: FixedLength(8),
    "tetris 0.5": lambda: Tetris(0.5, 4),
    "tetris 1": lambda: Tetris(1, 3),
    "tetris 2": lambda: Tetris(2, 8),
    "threshold": lambda: Threshold(0.4, 6),
    "dsd": lambda: Dsd(CostTable({}, (1, 100), (1.0, 1.5), (0.0,) * 7)),
}
COUNTS = ("requests", "drafted", "verified", "accepted", "rejected", "coupled", "emitted")


def drafter(name: str) -> ModelDrafter | NgramDrafter:
    # Trigrams of the target's own texts, so that some drafts are accepted.
    texts = transformers_generate(PROMPTS + random_prompts(4, 7, seed=8), NEW_TOKENS)
    return ModelDrafter(noisy_copy()) if name == "model" else NgramDrafter(NgramTable.count(texts, VOCAB_SIZE))


@cache
def eos_token() -> int:
    """The token that ends most of the texts early."""
    outputs = transformers_generate(PROMPTS, NEW_TOKENS)
    return max(range(VOCAB_SIZE), key=lambda token: len({o.index(token) for o in outputs if token in o}))


@cache
def recorded(name: str, eos: int | None = None, batch_size: int = 3) -> Run:
    return record(target(), PROMPTS, LIMITS, drafter(name), batch_size=batch_size, eos_token_id=eos)


def counts(steps) -> list[tuple[int, ...]]:
    return [tuple(getattr(step, name) for name in COUNTS) for step in steps]


class Watched:
    """A policy, and of each step what it was told of the rows: drafts, how many were verified, what came of them.

    Rows that sat out are left out: what they hold means nothing. So is their order, which is the batch's own matter.
    """

    def __init__(self, policy):
        self.policy, self.length = policy, policy.length
        self.num_drafts, self.select = policy.num_drafts, policy.select
        self.seen = []

    def observe(self, step, outcome):
        self.policy.observe(step, outcome)
        columns = outcome.drafts.ids, outcome.drafts.lens, *outcome[1:]
        rows = zip(*(column.tolist() for column in columns), strict=True)
        running = [(ids[:n], n, verified, count, coupled) for ids, n, verified, count, coupled in rows if count]
        assert [column.dtype for column in outcome[1:]] == [torch.int32, torch.int32, torch.bool]
        assert len(running) == step.requests and sum(row[3] - 1 for row in running) == step.accepted
        self.seen.append(sorted(running))


@pytest.mark.parametrize("batch_size", [1, 2, 5])
@pytest.mark.parametrize("ends_early", [False, True])
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", ["model", "ngram"])
def test_a_greedy_replay_is_the_live_decoder(name, policy, ends_early, batch_size):
    """Every count of every step, what became of each row's drafts, and the texts' lengths."""
    eos = eos_token() if ends_early else None
    seen_live = Watched(POLICIES[policy]())
    live = generate(
        target(),
        PROMPTS,
        LIMITS,
        batch_size=batch_size,
        drafter=drafter(name),
        policy=seen_live,
        eos_token_id=eos,
    )
    watched = Watched(POLICIES[policy]())
    replayed = simulate(recorded(name, eos), watched, COSTS, batch_size=batch_size)
    assert counts(replayed.steps) == counts(live.steps)
    assert watched.seen == seen_live.seen and len(watched.seen) == len(live.steps)
    assert [times.tokens for times in replayed.requests] == [len(output) for output in live.outputs]
    if policy == "fixed 3" and not ends_early:
        assert sum(step.accepted for step in live.steps) > 5 and sum(step.rejected for step in live.steps) > 5


def test_a_replay_sees_a_change_of_one_outcome():
    """That the comparison with the live decoder would fail if one draft, which every policy meets, came out wrong."""
    run = recorded("model")
    changed = run.accepted.copy()
    changed[0, 0] ^= True
    other = Run(**{**vars(run), "accepted": changed})
    before, after = (simulate(r, FixedLength(2), COSTS, batch_size=5).steps for r in (run, other))
    assert counts(before) != counts(after)


def in_loops(run: Run, length: int, batch_size: int, queue: list[int], prefill: float) -> list[tuple[float, float]]:
    """First and last time of each request under a fixed length, one request and token after the other."""
    clock, waiting, rows, times = 0.0, list(enumerate(queue)), [], {}
    starts = np.concatenate([[0], run.num_rows.cumsum()])
    while True:
        while waiting and len(rows) < batch_size:
            admitted = waiting[: batch_size - len(rows)]
            del waiting[: len(admitted)]
            clock += prefill * len(admitted)
            for entry, request in admitted:
                times[entry] = (clock, clock)
                if run.num_tokens[request] > 1:
                    rows.append([entry, request, 1])
        if not rows:
            return [times[entry] for entry in range(len(queue))]
        lens = [min(length, run.limits[request] - tokens - 1) for _, request, tokens in rows]
        clock += COSTS.verification(len(rows) + sum(lens)) + COSTS.drafting(length)
        for row, drafts in zip(rows, lens, strict=True):
            entry, request, tokens = row
            at = starts[request] + tokens - 1
            accepted = 0
            while accepted < drafts and run.accepted[at, accepted]:
                accepted += 1
            row[2] = min(tokens + accepted + 1, run.num_tokens[request])
            times[entry] = (times[entry][0], clock)
        rows = [row for row in rows if row[2] < run.num_tokens[row[1]]]


@pytest.mark.parametrize(("batch_size", "length"), [(1, 2), (3, 0), (4, 3), (50, 8)])
def test_clock_and_refill_are_those_of_loops(batch_size, length):
    run = recorded("ngram", eos_token())
    queue = make_queue(run.num_requests, 13, seed=4).tolist()
    run_of = simulate(run, FixedLength(length), COSTS, batch_size=batch_size, queue=queue, prefill_seconds=0.125)
    expected = in_loops(run, length, batch_size, queue, 0.125)
    assert [times.tokens for times in run_of.requests] == [run.num_tokens[r] for r in queue]
    np.testing.assert_allclose([(t.first, t.last) for t in run_of.requests], expected)
    first, last = min(run_of.requests).first, max(times.last for times in run_of.requests)
    assert first > 0 and last == pytest.approx(sum(step.seconds for step in run_of.steps) + 13 * 0.125)
    emitted = sum(step.emitted for step in run_of.steps)
    assert emitted == sum(run.num_tokens[r] - 1 for r in queue) == run_of.metrics.tokens
    assert run_of.accepted.sum() == sum(step.accepted for step in run_of.steps)
    assert run_of.verifications.sum() == sum(step.requests for step in run_of.steps)


def test_a_sampled_replay_of_chosen_drafts_has_the_law_of_the_live_decoder():
    """Steps that texts of 12 tokens take: means over 200 requests each, four standard errors apart at most."""
    prompts, sampled = PROMPTS * 40, {"temperature": 0.4}
    run = record(target(), prompts, 12, drafter("ngram"), num_drafts=3, seeds=range(1000, 1200), **sampled)
    assert not run.drawn
    replayed = simulate(run, FixedLength(3), COSTS, batch_size=200)
    live = [0] * 200
    decoder = generate(target(), prompts, 12, drafter=drafter("ngram"), policy=FixedLength(3), **sampled)
    replayed_steps, live_steps = replayed.verifications, [times.last for times in decoder.requests]
    live = np.searchsorted(np.cumsum([s.seconds for s in decoder.steps]) + decoder.prefill_seconds, live_steps) + 1
    assert 2 < live.mean() < 10.5, "some drafts are accepted"
    error = np.sqrt((live.var() + replayed_steps.var()) / 200)
    assert abs(live.mean() - replayed_steps.mean()) < 4 * error


def test_the_oracle_knows_what_will_be_accepted():
    run = recorded("model")

    def accepted(policy) -> Simulation:
        return simulate(run, policy, COSTS, batch_size=5)

    oracle = accepted(Oracle(1, 8))
    # Greedy drafts are accepted for certain or never: what it verifies with its last budget may still be rejected.
    assert oracle.metrics.tokens_per_verification >= accepted(Tetris(1, 8)).metrics.tokens_per_verification
    assert oracle.metrics.success_rate > accepted(FixedLength(1)).metrics.success_rate


def test_queue_is_every_request_before_one_comes_again():
    queue = make_queue(5, 12, seed=1)
    assert sorted(queue[:5]) == sorted(queue[5:10]) == [0, 1, 2, 3, 4] and len(queue) == 12
    assert queue.tolist() == make_queue(5, 12, seed=1).tolist() != make_queue(5, 12, seed=2).tolist()
    resampled = make_queue(50, 100, seed=1, resample=True)
    assert sorted(resampled[:50]) == sorted(resampled[50:]) and len(set(resampled)) < 45


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"batch_size": 0}, "batch_size: expected 1 or more, got 0"),
        ({"queue": [0, 5]}, "queue: expected requests of 0 to 4, got 0 to 5"),
        ({"queue": []}, "queue: expected requests of 0 to 4, got none"),
        ({"prefill_seconds": -1.0}, r"prefill_seconds: expected a number from 0 on, got -1\.0"),
        ({"policy": FixedLength(9)}, "policy: expected at most the 8 recorded drafts, got 9"),
        ({"costs": CostTable({}, (1, 2), (1, 2), (0, 1))}, "length: expected 0 to 1 drafts, got 2"),
    ],
)
def test_bad_input(changed, text):
    arguments = {"policy": FixedLength(2), "costs": COSTS, "batch_size": 2} | changed
    with pytest.raises(ValueError, match=text):
        simulate(recorded("model"), **arguments)
