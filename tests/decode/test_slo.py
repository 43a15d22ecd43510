"""The policy of deadlines: its history against lists, on recorded texts, and in the live decoder."""

from __future__ import annotations

import random
from functools import cache

import numpy as np
import oracle_preferences as oracle
import pytest
import torch
from tiny_models import NEW_TOKENS, PROMPTS, noisy_copy, target, transformers_generate

from tetris_decode.decoder import generate
from tetris_decode.draft_model import ModelDrafter
from tetris_decode.drafting import Drafts
from tetris_decode.metrics import Step
from tetris_decode.policies import FixedLength, Outcome, Policy, Tetris
from tetris_decode.simulate import Replay, simulate
from tetris_decode.slo import FIRST_RATE, FIRST_TESTS, KEPT, Deadlines
from tetris_decode.traces import load_runs
from tetris_kernels import CostTable, Preferences, deadline_preferences, select

INF = float("inf")


def goals(tokens: list[int], seconds: list[float], **options) -> Deadlines:
    return Deadlines(1.5, 4, tokens=torch.tensor(tokens), seconds=torch.tensor(seconds), **options)


def some_drafts(rng: random.Random, lens: list[int]) -> Drafts:
    logprobs = torch.tensor([[-rng.expovariate(2) for _ in range(4)] for _ in lens])
    return Drafts(torch.zeros(logprobs.shape, dtype=torch.int64), logprobs, torch.tensor(lens))


def a_step(seconds: float) -> Step:
    return Step(*[0] * (len(Step._fields) - 1), seconds=seconds)


@pytest.mark.parametrize("out_of_reach", ["none", "all"])
@pytest.mark.parametrize("seed", range(5))
def test_preferences_are_those_of_a_history_in_lists(seed, out_of_reach):
    """Every row's tests and tokens one by one, with rows that sit out, drafts that run out, and the coupled bonus."""
    rng = random.Random(seed)
    tokens, seconds = [60, 30, 50, 50, 90], [1.0, INF, 0.8, 0.1, 1.8]
    policy = goals(tokens, seconds, out_of_reach=out_of_reach, nats_per_step=0.25)
    accepted, tested, waited = [FIRST_RATE * FIRST_TESTS] * 5, [float(FIRST_TESTS)] * 5, [0] * 5
    left, clock, step_seconds, wanted = list(tokens), 0.0, None, Preferences(torch.zeros(5).int(), torch.zeros(5))
    seen = set()
    for _ in range(30):
        drafts = some_drafts(rng, [rng.choice([0, 1, 4, 4, 4]) for _ in range(5)])
        if step_seconds:
            rates = torch.tensor([a / t for a, t in zip(accepted, tested, strict=True)])
            until = torch.tensor([s - clock for s in seconds])
            options = {"step_seconds": step_seconds, "num_drafts": 4, "out_of_reach": out_of_reach}
            wanted = deadline_preferences(torch.tensor(left), until, rates, **options)
        lens = select(
            drafts.logprobs,
            round(1.5 * 5),
            draft_lens=drafts.lens,
            min_lens=wanted.min_lens,
            log_weights=wanted.log_weights + torch.tensor([0.25 * n for n in waited]),
        ).lens
        assert policy.select(drafts, 5).lens.tolist() == lens.tolist()
        seen |= set(wanted.min_lens.tolist())

        counts, coupled = [], []
        for r, (n, most) in enumerate(zip(lens.tolist(), drafts.lens.tolist(), strict=True)):
            outcomes = [rng.random() < 0.6 for _ in range(min(n + 1, most))]
            passed = outcomes.index(False) if False in outcomes else len(outcomes)
            counts.append(0 if rng.random() < 0.1 else min(passed, n) + 1)
            coupled.append(counts[-1] > 0 and passed > n)
            if counts[-1]:
                accepted[r] += passed
                tested[r] += min(passed + 1, len(outcomes))
            left[r] -= counts[-1]
            waited[r] = oracle.waited(waited[r], n, most)
        took = rng.choice([0.025, 0.03, 0.05])
        step_seconds = took if step_seconds is None else KEPT * step_seconds + (1 - KEPT) * took
        clock += took
        policy.observe(a_step(took), Outcome(drafts, lens, torch.tensor(counts).int(), torch.tensor(coupled)))
    assert len(seen) > 2, "there were floors"


COSTS = CostTable({"model": "made"}, (1, 1001), (0.03, 0.06), (0.0,) * 9)
RATE, TIGHT, BATCH = 65, 4, 16


@cache
def recorded() -> tuple[Replay, np.ndarray]:
    run = load_runs()["layer-skip@T0"]
    return Replay(run), np.flatnonzero(run.num_tokens == run.num_tokens.max())


def replayed(policy: str, batch: int) -> tuple[list[float], float]:
    """Seconds of the first requests of a batch over what they may take, and tokens per verification."""
    replay, full = recorded()
    queue = full[batch * BATCH : (batch + 1) * BATCH]
    tokens = torch.from_numpy(replay.run.num_tokens[queue] - 1)
    seconds = torch.full((BATCH,), INF)
    seconds[:TIGHT] = tokens[:TIGHT] / RATE
    policies: dict[str, Policy] = {
        "tetris": Tetris(1, 6),
        "deadlines": Deadlines(1, 6, tokens=tokens, seconds=seconds),
        "no deadlines": Deadlines(1, 6, tokens=tokens, seconds=torch.full((BATCH,), INF)),
        "all drafts": FixedLength(6),
    }
    run = simulate(replay, policies[policy], COSTS, batch_size=BATCH, queue=queue)
    late = [times.last - float(end) for times, end in zip(run.requests[:TIGHT], seconds[:TIGHT], strict=True)]
    return late, run.metrics.tokens_per_verification


def test_deadlines_of_recorded_texts():
    """Four of each 16 requests must have 65 tokens a second: how many are in time, of 12, and what it costs."""
    in_time, tokens = {}, {}
    for policy in ("tetris", "deadlines", "no deadlines", "all drafts"):
        runs = [replayed(policy, batch) for batch in range(3)]
        in_time[policy] = sum(late <= 0 for lates, _ in runs for late in lates)
        tokens[policy] = [tokens for _, tokens in runs]
    assert in_time["tetris"] <= 4 and in_time["deadlines"] >= 8
    # No choice of six drafts or fewer has more of these texts in time than all of their drafts.
    assert in_time["deadlines"] <= in_time["all drafts"]
    assert tokens["no deadlines"] == tokens["tetris"]
    assert 0.95 < sum(tokens["deadlines"]) / sum(tokens["tetris"]) < 1


def test_output_is_that_of_plain_decoding():
    policy = Deadlines(
        1,
        4,
        tokens=torch.full((len(PROMPTS),), NEW_TOKENS - 1),
        seconds=torch.full((len(PROMPTS),), 1e-3),
        out_of_reach="all",
        nats_per_step=0.5,
    )
    run = generate(target(), PROMPTS, NEW_TOKENS, drafter=ModelDrafter(noisy_copy()), policy=policy)
    assert run.outputs == transformers_generate(PROMPTS, NEW_TOKENS)
    assert sum(step.accepted for step in run.steps) > 0


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"seconds": [1.0]}, ValueError, r"seconds_left: expected shape \[2\], one value per request, got \[1\]"),
        ({"seconds": [1, 2]}, TypeError, "seconds_left: expected dtype torch.float32, got torch.int64"),
        ({"out_of_reach": "most"}, ValueError, "out_of_reach: expected one of 'none', 'all', got 'most'"),
        ({"nats_per_step": -1.0}, ValueError, r"nats_per_step: expected a finite number from 0 on, got -1\.0"),
    ],
)
def test_bad_input(options, error, text):
    with pytest.raises(error, match=text):
        goals(**{"tokens": [9, 9], "seconds": [1.0, 1.0]} | options)


def test_bad_lengths():
    with pytest.raises(ValueError, match="length: expected 0 to 256 drafts, got 257"):
        Deadlines(1, 257, tokens=torch.tensor([1]), seconds=torch.ones(1))
