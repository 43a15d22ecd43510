"""The n-gram drafter's model, straight from its definition: dictionaries and loops over the whole vocabulary."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence


def count(documents: Iterable[Sequence[int]]) -> Counter[tuple[int, int, int]]:
    """Trigrams within documents."""
    return Counter(t for d in documents for t in zip(d, d[1:], d[2:], strict=False))


def witten_bell(successors: Counter[int], token: int, shorter: float, times: int = 1) -> float:
    """(count + R * shorter) / (C + R), R being `times` the types, and `shorter` for a context that was not seen."""
    total, reserve = sum(successors.values()), times * len(successors)
    return (successors[token] + reserve * shorter) / (total + reserve) if total else shorter


class Model:
    """P(token | history): the request's n-grams down from 6-grams, then the table's trigrams down to uniform."""

    def __init__(self, table: Counter[tuple[int, int, int]], vocab_size: int, request: Sequence[int] = ()) -> None:
        self.vocab_size = vocab_size
        self.table: list[dict] = [defaultdict(Counter) for _ in range(3)]
        for (first, second, third), times in table.items():
            for order, context in zip(self.table, ((), (second,), (first, second)), strict=True):
                order[context][third] += times
        self.own: list[dict] = [defaultdict(Counter) for _ in range(5)]
        for length, order in enumerate(self.own, 1):
            for i in range(length, len(request)):
                order[tuple(request[i - length : i])][request[i]] += 1

    def probability(self, history: Sequence[int], token: int) -> float:
        """Of a token after these; where there are fewer than 5, zeros stand before them."""
        recent = (*[0] * 5, *history)[-5:]
        probability = 1 / self.vocab_size
        for length, order in enumerate(self.table):
            probability = witten_bell(order[recent[5 - length :]], token, probability)
        for length, order in enumerate(self.own, 1):
            probability = witten_bell(order[recent[5 - length :]], token, probability, times=4)
        return probability

    def best(self, history: Sequence[int]) -> tuple[int, float]:
        """The most probable of all tokens, the lowest id of (nearly) equals."""
        probabilities = [self.probability(history, token) for token in range(self.vocab_size)]
        best = max(probabilities)
        return next(token for token, p in enumerate(probabilities) if p >= best * (1 - 1e-12)), best
