"""The n-gram drafter's model, straight from its definition: dictionaries and loops over the whole vocabulary."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence


def count(documents: Iterable[Sequence[int]]) -> Counter[tuple[int, int, int]]:
    """Trigrams within documents."""
    return Counter(t for d in documents for t in zip(d, d[1:], d[2:], strict=False))


def witten_bell(successors: Counter[int], token: int, shorter: float) -> float:
    """(count + T * shorter) / (C + T), and `shorter` for a context that was not seen."""
    total, types = sum(successors.values()), len(successors)
    return (successors[token] + types * shorter) / (total + types) if total else shorter


class Model:
    """P(token | first, second): the request's trigrams, its bigrams, then the table's trigrams down to uniform."""

    def __init__(self, table: Counter[tuple[int, int, int]], vocab_size: int, request: Sequence[int] = ()) -> None:
        self.vocab_size = vocab_size
        self.table: list[dict] = [defaultdict(Counter) for _ in range(3)]
        for (first, second, third), times in table.items():
            for order, context in zip(self.table, ((), (second,), (first, second)), strict=True):
                order[context][third] += times
        self.own: list[dict] = [defaultdict(Counter), defaultdict(Counter)]
        for i in range(1, len(request)):
            self.own[0][(request[i - 1],)][request[i]] += 1
            if i > 1:
                self.own[1][(request[i - 2], request[i - 1])][request[i]] += 1

    def probability(self, first: int, second: int, token: int) -> float:
        probability = 1 / self.vocab_size
        contexts = ((), (second,), (first, second))
        for order, context in zip(self.table + self.own, contexts + contexts[1:], strict=True):
            probability = witten_bell(order[context], token, probability)
        return probability

    def best(self, first: int, second: int) -> tuple[int, float]:
        """The most probable of all tokens, the lowest id of (nearly) equals."""
        probabilities = [self.probability(first, second, token) for token in range(self.vocab_size)]
        best = max(probabilities)
        return next(token for token, p in enumerate(probabilities) if p >= best * (1 - 1e-12)), best
