"""The exact law of what two requests emit, by going through every draft and every outcome; plain Python, no torch.

Models are Markov: row t of a table is the law of the token behind t. All probabilities are Fractions, so equal
means equal. Requests come out of a few steps with different numbers of tokens: laws are compared on the first
tokens of each, after the target itself has continued what is shorter (`completed`). Lossless means that this is
`target_law`, in which the requests are independent.
"""

from __future__ import annotations

import itertools
import math
import random
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import oracle

Row = tuple[Fraction, ...]
Tokens = tuple[int, ...]
Pair = tuple[Tokens, Tokens]  # something of request 0, the same of request 1
Keys = Sequence[Sequence[int]]


@dataclass(frozen=True)
class Model:
    """first: the token in front of what each request emits."""

    target: tuple[Row, ...]
    draft: tuple[Row, ...]
    first: tuple[int, int] = (0, 1)


class Plan(NamedTuple):
    """What a step gives to `select`."""

    budget: int = 0
    draft_lens: tuple[int, int] | None = None
    min_lens: tuple[int, int] | None = None
    max_lens: tuple[int, int] | None = None
    log_weights: tuple[float, float] | None = None


def of_token(q: Row, token: int) -> Fraction:
    return q[token]


def of_top(q: Row, token: int) -> Fraction:
    return max(q)


def of_collision(q: Row, token: int) -> Fraction:
    return sum(x * x for x in q)


def no_look(plan: Plan, drafts: Pair) -> Plan:
    return plan


def no_rule(keys: Keys, budget: int) -> int:
    return budget


@dataclass(frozen=True)
class Way:
    """How drafts are made, selected and tested.

    argmax:  drafts are the drafter's most probable tokens instead of draws.
    one_hot: they are tested as if the drafter could give no others.
    plan:    a step's plan, from what the requests have emitted before it.
    look:    changes the plan when the drafts are drawn; lossless only in what it may look at.
    rule:    the budget, from the keys that `select` orders.
    reuse:   drafts that were selected but come after a rejected one are proposed again in the next step.
    """

    score: Callable[[Row, int], Fraction] = of_token
    coupled: bool = True
    argmax: bool = False
    one_hot: bool = False
    plan: Callable[[Pair], Plan] = lambda history: Plan()
    look: Callable[[Plan, Pair], Plan] = no_look
    rule: Callable[[Keys, int], int] = no_rule
    reuse: bool = False


def best(row: Row) -> int:
    return max(range(len(row)), key=lambda token: (row[token], -token))


def one_hot(token: int, size: int) -> Row:
    return tuple(Fraction(i == token) for i in range(size))


def greedy_target(model: Model) -> Model:
    """The same at temperature 0."""
    return Model(tuple(one_hot(best(p), len(p)) for p in model.target), model.draft, model.first)


def random_model(seed: int, size: int = 2, parts: int = 20) -> Model:
    """Rows of multiples of 1 / parts, some of them 0."""
    rng = random.Random(seed)

    def row() -> Row:
        cuts = sorted(rng.randint(0, parts) for _ in range(size - 1))
        return tuple(Fraction(b - a, parts) for a, b in itertools.pairwise([0, *cuts, parts]))

    def table() -> tuple[Row, ...]:
        return tuple(row() for _ in range(size))

    return Model(table(), table(), (0, rng.randrange(size)))


def emitted_law(model: Model, way: Way, steps: int, num_drafts: int = 2) -> dict[Pair, Fraction]:
    """The joint law of all that the two requests emit in `steps` steps."""
    law: dict[tuple[Pair, Pair], Fraction] = {(((), ()), ((), ())): Fraction(1)}
    known: dict[tuple, dict] = {}
    for _ in range(steps):
        after: dict[tuple[Pair, Pair], Fraction] = defaultdict(Fraction)
        for (history, carried), weight in law.items():
            last = tuple((first, *h)[-1] for first, h in zip(model.first, history, strict=True))
            state = (last, way.plan(history), carried)
            if state not in known:
                known[state] = step_law(model, way, *state, num_drafts)
            for (tokens, left), probability in known[state].items():
                joined = (history[0] + tokens[0], history[1] + tokens[1])
                after[joined, left] += weight * probability
        law = after
    total: dict[Pair, Fraction] = defaultdict(Fraction)
    for (history, _), weight in law.items():
        total[history] += weight
    return total


def step_law(
    model: Model, way: Way, last: tuple[int, ...], plan: Plan, carried: Pair, num_drafts: int
) -> dict[tuple[Pair, Pair], Fraction]:
    """The joint law of what a step emits, with the drafts that it leaves to be proposed again."""
    law: dict[tuple[Pair, Pair], Fraction] = defaultdict(Fraction)
    choices = [list(drawn(model, way, last[r], carried[r], num_drafts)) for r in (0, 1)]
    for (row0, weight0), (row1, weight1) in itertools.product(*choices):
        rows = (row0, row1)
        lens, offered = selected(model, way, last, way.look(plan, rows), rows)
        outcomes = [outcome_law(model, way, last[r], rows[r][: offered[r]], lens[r]).items() for r in (0, 1)]
        for (tokens0, p0), (tokens1, p1) in itertools.product(*outcomes):
            tokens = (tokens0, tokens1)
            left = tuple(row[len(t) : n] if way.reuse else () for row, t, n in zip(rows, tokens, lens, strict=True))
            law[tokens, left] += weight0 * weight1 * p0 * p1
    return law


def drawn(model: Model, way: Way, last: int, carried: Tokens, num_drafts: int) -> Iterator[tuple[Tokens, Fraction]]:
    """Every row of drafts behind the token `last` that can be drawn, with its probability."""
    for row in itertools.product(range(len(model.draft)), repeat=num_drafts):
        weight = Fraction(row[: len(carried)] == carried)
        for before, token in list(itertools.pairwise((last, *row)))[len(carried) :]:
            q = model.draft[before]
            weight *= int(token == best(q)) if way.argmax else q[token]
        if weight:
            yield row, weight


def selected(
    model: Model, way: Way, last: tuple[int, ...], plan: Plan, rows: Pair
) -> tuple[Sequence[int], tuple[int, ...]]:
    """Drafts selected of each request, and drafts that there were to select from."""
    logprobs = [
        [
            math.log(score) if (score := way.score(model.draft[before], token)) else -math.inf
            for before, token in itertools.pairwise((last[r], *rows[r]))
        ]
        for r in (0, 1)
    ]
    keys = oracle.batch_keys(logprobs, plan.draft_lens, plan.min_lens, plan.max_lens, plan.log_weights)
    offered = plan.draft_lens or (len(rows[0]), len(rows[1]))
    return oracle.greedy(keys, way.rule(keys, plan.budget)), offered


def outcome_law(model: Model, way: Way, last: int, drafts: Tokens, length: int) -> dict[Tokens, Fraction]:
    """The law of what a request emits of `drafts`, of which `length` are selected."""
    law: dict[Tokens, Fraction] = defaultdict(Fraction)
    reached = Fraction(1)  # the probability that all drafts so far were accepted
    for j, token in enumerate(drafts[: length + way.coupled]):
        p = model.target[last]
        q = one_hot(token, len(p)) if way.one_hot else model.draft[last]
        accepted = min(1, p[token] / q[token])
        excess = [max(a - b, 0) for a, b in zip(p, q, strict=True)]
        if accepted < 1:
            for other, x in enumerate(excess):
                law[(*drafts[:j], other)] += reached * (1 - accepted) * x / sum(excess)
        reached *= accepted
        if j == length:
            # The coupled bonus: the first draft that is not selected, tested as if it were.
            law[drafts[: j + 1]] += reached
            break
        last = token
    else:
        for other, p_other in enumerate(model.target[last]):
            law[(*drafts[:length], other)] += reached * p_other
    return {tokens: p for tokens, p in law.items() if p}


def continuations(model: Model, last: int, length: int) -> dict[Tokens, Fraction]:
    """The target's law of the next `length` tokens behind `last`."""
    law: dict[Tokens, Fraction] = {}
    for tokens in itertools.product(range(len(model.target)), repeat=length):
        law[tokens] = math.prod(model.target[before][token] for before, token in itertools.pairwise((last, *tokens)))
    return law


def target_law(model: Model, length: int) -> dict[Pair, Fraction]:
    """The joint law of the first `length` tokens of each request, decoded without speculation."""
    one, other = (continuations(model, first, length).items() for first in model.first)
    return {(a, b): p * q for (a, p), (b, q) in itertools.product(one, other)}


def completed(model: Model, law: dict[Pair, Fraction], length: int) -> dict[Pair, Fraction]:
    """The law of the first `length` tokens of each request when the target continues what `law` says."""
    cut: dict[tuple[Pair, Tokens], Fraction] = defaultdict(Fraction)
    for history, weight in law.items():
        last = tuple((first, *tokens[:length])[-1] for first, tokens in zip(model.first, history, strict=True))
        cut[(history[0][:length], history[1][:length]), last] += weight
    total: dict[Pair, Fraction] = defaultdict(Fraction)
    for (history, last), weight in cut.items():
        rests = [continuations(model, last[r], length - len(history[r])).items() for r in (0, 1)]
        for (rest0, p0), (rest1, p1) in itertools.product(*rests):
            total[history[0] + rest0, history[1] + rest1] += weight * p0 * p1
    return total


def differences(model: Model, way: Way, steps: int, length: int, num_drafts: int = 2) -> list[Fraction]:
    """The completed law less the target's, for each pair of first tokens."""
    law = completed(model, emitted_law(model, way, steps, num_drafts), length)
    expected = target_law(model, length)
    return [law.get(pair, 0) - expected.get(pair, 0) for pair in law.keys() | expected.keys()]


def error(model: Model, way: Way, steps: int, length: int, num_drafts: int = 2) -> Fraction:
    """The largest difference of a probability."""
    return max(map(abs, differences(model, way, steps, length, num_drafts)))


def total_variation(model: Model, way: Way, steps: int, length: int, num_drafts: int = 2) -> float:
    """The largest difference of any event's probability."""
    return float(sum(map(abs, differences(model, way, steps, length, num_drafts)))) / 2
