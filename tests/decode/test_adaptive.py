"""The adaptive budget: what it chooses by costs and by what drafts promise, when it looks again, and whole runs."""

from __future__ import annotations

import itertools
import math
import random

import pytest
from made_runs import head, made_run
from tiny_models import NEW_TOKENS, PROMPTS, noisy_copy, target, transformers_generate

from tetris_decode.adaptive import PROBED, Adaptive
from tetris_decode.decoder import generate
from tetris_decode.draft_model import ModelDrafter
from tetris_decode.policies import NO_SPECULATION, Tetris
from tetris_decode.simulate import Replay, make_queue, simulate
from tetris_decode.traces import load_runs
from tetris_kernels import CostTable

HALF = math.log(0.5)


def costs(per_token: float, draft: float = 0.0, length: int = 4) -> CostTable:
    """1 s, and so much for each token over the first; so much for each draft."""
    return CostTable({}, (1, 101), (1.0, 1.0 + 100 * per_token), tuple(draft * n for n in range(length + 1)))


def coin_run(num_requests: int = 8, num_tokens: int = 60, num_drafts: int = 4):
    """Every second draft of a chain is accepted, as its scores say: 1/2 and then never, in turn."""
    rows = num_requests * (num_tokens - 1)
    log_q = [[HALF] * num_drafts] * rows
    accepted = [[(i >> d) & 1 == 0 for d in range(num_drafts)] for i in range(rows)]
    return made_run(log_q, accepted, [num_tokens] * num_requests)


def budgets_of(policy: Adaptive, table: CostTable, batch_size: int = 4, run=None) -> list[int]:
    found: list[int] = []
    simulate(
        Replay(run or coin_run()),
        policy,
        table,
        batch_size=batch_size,
        on_step=lambda step: found.append(step.verified),
    )
    return found


@pytest.mark.parametrize(
    ("per_token", "expected"),
    # Survivals are 1/2, 1/4, 1/8, 1/16. A draft of survival s pays as long as s * seconds > per_token * tokens emitted.
    [(0.0001, 16), (0.02, 12), (0.04, 8), (0.1, 4), (0.25, 0), (5.0, 0)],
)
def test_the_budget_is_the_best_one_by_hand(per_token, expected):
    table = costs(per_token)
    n, survivals = 4, [0.5, 0.25, 0.125, 0.0625]
    by_hand = max(
        range(0, 17, 4),
        key=lambda c: (n + n * sum(survivals[: c // 4])) / table.verification(n + c),
    )
    assert by_hand == expected
    policy = Adaptive(table, 4)
    found = budgets_of(policy, table)
    # All survivals of a position tie, so that budgets between are between.
    assert found[0] == 4, "one for each request until something is known"
    assert found[5] == found[20] == expected


def test_dear_drafts_are_not_made_but_looked_at_now_and_then():
    table = costs(0.0001, draft=0.6)
    drafted: list[int] = []
    run = coin_run(4, num_tokens=1500)
    policy = Adaptive(table, 4)
    simulate(Replay(run), policy, table, batch_size=4, on_step=lambda step: drafted.append(step.drafted))
    looked = [i for i, n in enumerate(drafted) if n]
    assert looked[0] == 0 and len(looked) >= 3
    seconds = [later - earlier for earlier, later in itertools.pairwise(looked)]
    assert min(seconds) * PROBED >= table.drafting(4) / table.verification(4) - 1
    assert max(seconds) * PROBED <= table.drafting(4) + 0.01


def test_fewer_drafts_are_made_where_they_cost_more_than_they_promise():
    """A second draft promises 1/4 token of 1.5, and costs more than that of the time."""
    table = costs(0.0001, draft=0.2)
    steps = simulate(Replay(coin_run()), Adaptive(table, 4), table, batch_size=4).steps
    made = [round(step.draft_seconds / 0.2) for step in steps][8:100]
    assert set(made) <= {1, 4} and made.count(4) <= 2


def test_it_starts_again_when_the_load_falls():
    """Dear tokens from 20 on: nothing is verified for 20 requests, and something again for 4."""
    table = CostTable({}, (1, 20, 21, 200), (1.0, 1.0, 1.5, 150.0), (0.0, 0.001, 0.002, 0.003, 0.004))
    policy, replay = Adaptive(table, 4), Replay(coin_run(20))
    verified = []
    for batch_size in (4, 20, 4):
        steps = simulate(replay, policy, table, batch_size=batch_size).steps
        full = [step for step in steps if step.requests == batch_size]
        verified.append(sum(step.verified for step in full[5:]) / len(full[5:]))
    assert verified[0] > 4 and verified[1] == 0 and verified[2] == pytest.approx(verified[0], rel=0.1)


def test_every_look_is_asked_about():
    """Good drafts come back while nothing is drafted: the first look behind that is enough to see it."""
    table = costs(0.1, draft=0.01)
    rng = random.Random(0)
    good, rows = math.log(0.9), 2000
    scores = [math.log(0.02)] * (rows // 2) + [good] * (rows // 2)
    accepted = [rng.random() < math.exp(score) for score in scores]
    run = made_run([[s] * 4 for s in scores], [[a] * 4 for a in accepted], [rows + 1])
    drafted: list[tuple[int, int]] = []
    policy = Adaptive(table, 4)
    simulate(Replay(run), policy, table, batch_size=1, on_step=lambda s: drafted.append((policy._asked, s.drafted)))
    looks = [asked for asked, made in drafted if made]
    # Of the steps that drafted without a plan to, none was in vain.
    first = next(i for i, (_, made) in enumerate(drafted) if not made)
    seen = [asked for asked, made in drafted[first:] if made][:5]
    assert seen == list(range(seen[0], seen[0] + 5)), looks


def test_beyond_the_last_bucket_nothing_is_drafted():
    policy = Adaptive(CostTable({}, (4, 6), (1.0, 1.1), (0.0,) * 5, staircase=True), 4)
    for num_active, made, budget in ((4, 4, 2), (6, 0, 0), (7, 0, 0), (5, 4, 1)):
        assert (policy.num_drafts(num_active), policy.budget) == (made, budget)


def test_the_same_step_verifies_no_less_than_the_plan():
    """A dear first token, at which a stopping rule stops, and cheap ones behind it."""
    table = CostTable({}, (4, 5, 20), (1.0, 1.6, 1.65), (0.0,) * 5)
    high = [[math.log(0.95)] * 4] * 1000
    run = made_run(high, [[True] * 4] * 1000, [126] * 8)
    lagged, same = (simulate(Replay(run), Adaptive(table, 4, same_step=s), table, batch_size=4) for s in (False, True))
    assert [step.verified for step in lagged.steps][5:20] == [16] * 15
    assert [step.verified for step in same.steps][5:20] == [16] * 15


def test_padding_that_is_paid_is_filled():
    stairs = CostTable({}, (4, 12, 64), (1.0, 1.05, 9.0), (0.0,) * 5, staircase=True)
    assert set(budgets_of(Adaptive(stairs, 4), stairs)[2:40]) == {8}


@pytest.mark.parametrize("name", ["ngram@T0", "ngram@T0.7", "layer-skip@T0", "layer-skip@T0.7"])
@pytest.mark.parametrize("batch_size", [1, 8, 32])
def test_it_is_near_the_best_fixed_budget_on_recorded_drafts(name, batch_size):
    """Costs like this project's CPU: flat up to about 50 tokens, then rising; by measured acceptance."""
    table = CostTable({}, (1, 50, 400), (0.07, 0.09, 0.7), tuple(4e-4 * n for n in range(9)))
    run = load_runs()[name]
    replay = Replay(head(run, 40))
    queue = make_queue(40, max(40, 3 * batch_size), 0)

    def throughput(policy) -> float:
        return simulate(replay, policy, table, batch_size=batch_size, queue=queue).metrics.throughput

    fixed = {c: throughput(Tetris(c, 8)) for c in (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0, 8.0)}
    plain = throughput(NO_SPECULATION)
    adaptive = throughput(Adaptive(table, 8))
    assert adaptive > 0.99 * plain
    assert adaptive > 0.93 * max(plain, *fixed.values()), (adaptive / plain, {c: f / plain for c, f in fixed.items()})


def test_greedy_output_is_that_of_plain_decoding():
    run = generate(
        target(),
        PROMPTS,
        NEW_TOKENS,
        drafter=ModelDrafter(noisy_copy()),
        policy=Adaptive(costs(0.05), 4),
    )
    assert run.outputs == transformers_generate(PROMPTS, NEW_TOKENS)
    assert sum(step.verified for step in run.steps) > 0


def test_nothing_is_drafted_if_nothing_pays():
    run = generate(
        target(), PROMPTS, NEW_TOKENS, drafter=ModelDrafter(noisy_copy()), policy=Adaptive(costs(5.0, 9.0), 4)
    )
    assert run.outputs == transformers_generate(PROMPTS, NEW_TOKENS)
    assert [step.drafted for step in run.steps[1:]] == [0] * (len(run.steps) - 1)


def test_wrong_input():
    with pytest.raises(ValueError, match="length: expected 0 to 4 drafts, got 5"):
        Adaptive(costs(0.1), 5)
    with pytest.raises(ValueError, match="length: expected 0 to 256 drafts, got 257"):
        Adaptive(costs(0.1), 257)
    with pytest.raises(ValueError, match="cost table: expected seconds that rise somewhere"):
        Adaptive(costs(0.0), 4)
