"""accept in plain Python: for one request, every outcome that float32 arithmetic may come to.

Nearly always that is one. A test u * q < p whose sides are within float32 rounding of each other may go either
way, and a draw that is that close to the border of two tokens may give either.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

# Rounding, in relative terms: exp(x) for an x that is off by |x| * EPS, and sums of such terms.
EPS = 2.0**-20
TINY = 2.0**-119  # float32 rounds what is smaller away


class Request(NamedTuple):
    """One request of a verified batch. A row is a list of logits."""

    target: Sequence[Sequence[float]]  # of its slots, one more than drafts in the batch; none: it sits out
    draft: Sequence[Sequence[float]] | None  # of each draft; None: one-hot
    draft_len: int
    ids: Sequence[int]
    uniforms: Sequence[float]  # one more than ids
    temperature: float
    coupled: bool


class Outcome(NamedTuple):
    """Accepted drafts, whether the next one is emitted too, by the coupled bonus, and else what may be."""

    accepted: int
    coupled: bool
    last: Collection[int]


def softmax(logits: Sequence[float], temperature: float) -> list[float] | None:
    """Probabilities; None for a row of which nothing is promised: NaN, +inf, or nothing but -inf."""
    top = max(logits)
    if not all(x < math.inf for x in logits) or top == -math.inf:
        return None
    scale = min(max(0.0 if temperature == math.inf else 1 / temperature, 2.0**-64), 2.0**64)
    powers = [math.exp((x - top) * scale) for x in logits]
    total = math.fsum(powers)
    return [power / total for power in powers]


def _nats(p: float) -> float:
    return -math.log(p) if p > 0 else 0.0


def _error(row: Sequence[float]) -> float:
    """What the probabilities of a row may be off by together."""
    return EPS * (2 + math.fsum(p * _nats(p) for p in row))


def verdicts(u: float, q: float, p: float) -> set[bool]:
    """What u * q < p may come to."""
    if math.isnan(u) or p == 0:
        return {False}
    side = u * q
    slack = EPS * (abs(side) * (2 + _nats(q)) + p * (2 + _nats(p))) + TINY
    return {True, False} if abs(side - p) <= slack else {side < p}


def draws(weights: Sequence[float], possible: Sequence[bool], u: float, slack: float) -> set[int]:
    """The tokens whose part of the running sum may hold u; slack in terms of the weights."""
    total = math.fsum(weights)
    point = (0.0 if math.isnan(u) else min(max(u, 0.0), 1.0)) * total
    after = list(itertools.accumulate(weights))
    return {
        token
        for token, weight in enumerate(weights)
        if possible[token] and after[token] - weight - slack <= point and point <= after[token] + slack
    }


def _direct(p: Sequence[float] | None, vocabulary: int, u: float) -> Collection[int]:
    if p is None:
        return range(vocabulary)
    return draws(p, [x > 0 for x in p], u, _error(p))


def _residual(p: Sequence[float] | None, q: Sequence[float] | None, vocabulary: int, u: float) -> Collection[int]:
    """Draws from max(p - q, 0), or from p if that is zero everywhere."""
    if p is None:
        return range(vocabulary)
    if q is None:
        return _direct(p, vocabulary, u)
    rest = [max(a - b, 0.0) for a, b in zip(p, q, strict=True)]
    if not any(rest):
        return _direct(p, vocabulary, u)
    near = [EPS * (a * (2 + _nats(a)) + b * (2 + _nats(b))) for a, b in zip(p, q, strict=True)]
    possible = [a > 0 and a - b > -close for a, b, close in zip(p, q, near, strict=True)]
    slack = _error(p) + _error(q)
    if math.fsum(rest) <= slack:
        # All of it may be rounding, or nothing: then p.
        return [token for token, a in enumerate(p) if a > 0]
    return draws(rest, possible, u, slack)


def _one_hot_residual(p: Sequence[float] | None, draft_id: int, vocabulary: int, u: float) -> Collection[int]:
    """Draws from p without the draft. No difference is formed, so that the error is relative to what is left."""
    if p is None:
        return range(vocabulary)
    rest = [0.0 if token == draft_id else x for token, x in enumerate(p)]
    total = math.fsum(rest)
    if total == 0:
        return _direct(p, vocabulary, u)
    rest = [x / total for x in rest]
    # An error that all terms share, as that of a large exponent, goes out; what float32 cannot hold may be missing.
    return draws(rest, [x > 0 for x in rest], u, _error(rest) + TINY / total)


def _argmax(logits: Sequence[float]) -> int | None:
    if softmax(logits, 1.0) is None:
        return None
    return max(range(len(logits)), key=lambda token: (logits[token], -token))


def _step(request: Request, j: int, is_tested: bool) -> tuple[set[bool], Collection[int]]:
    """What the test of draft j may come to, and what may be emitted if it fails or is not done."""
    logits, u = request.target[j], request.uniforms[-1]
    vocabulary = len(logits)
    draft_id = request.ids[j] if is_tested else -1
    known = 0 <= draft_id < vocabulary
    if not request.temperature > 0:
        choice = _argmax(logits)
        if choice is None:
            return {known, False}, range(vocabulary)
        return {choice == draft_id}, [choice]

    p = softmax(logits, request.temperature)
    if not is_tested:
        return {False}, _direct(p, vocabulary, u)
    if request.draft is None:
        q, q_of_draft = None, 1.0
        last = _one_hot_residual(p, draft_id, vocabulary, u)
    else:
        q = softmax(request.draft[j], 1.0)
        q_of_draft = math.nan if q is None else q[draft_id] if known else 0.0
        last = _residual(p, q, vocabulary, u)
    if p is None:
        return {known, False}, last
    if math.isnan(q_of_draft) or not known:
        return {False}, last
    return verdicts(request.uniforms[j], q_of_draft, p[draft_id]), last


def outcomes(request: Request) -> list[Outcome]:
    """All that may happen; none for a request that sits out."""
    found: list[Outcome] = []
    lens = len(request.target) - 1
    tested = min(lens + request.coupled, request.draft_len, len(request.ids))
    for j in range(lens + 1):
        verdict, last = _step(request, j, j < tested)
        if False in verdict:
            found.append(Outcome(j, False, last))
        if True not in verdict:
            break
        if j == lens:
            found.append(Outcome(j, True, ()))
    return found


def is_allowed(request: Request, tokens: Sequence[int], count: int, coupled: bool) -> bool:
    """Whether a row of accept's tokens, its count and its flag are one of the outcomes."""
    padding = [-1] * (len(request.ids) + 1 - count)
    if not request.target:
        return count == 0 and not coupled and list(tokens) == padding
    for outcome in outcomes(request):
        n = outcome.accepted
        if count == n + 1 and coupled == outcome.coupled and list(tokens[:n]) == list(request.ids[:n]):
            last = [request.ids[n]] if coupled else outcome.last
            if tokens[n] in last and list(tokens[n + 1 :]) == padding:
                return True
    return False


def is_certain(request: Request) -> bool:
    """Whether there is one outcome only."""
    found = outcomes(request)
    return not found or (len(found) == 1 and (found[0].coupled or len(found[0].last) == 1))
