"""Background counts of an n-gram drafter, and the trigram model they make.

Witten and Bell, 1991: a context h that was seen C times, with T different successors, gives a successor w

    P(w | h) = (count(h, w) + T * P(w | shorter h)) / (C + T)

so the more often a context was seen and the fewer its successors, the less the shorter context has to say.
The trigram falls back to the bigram, that to the unigram, that to all tokens alike.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from os import PathLike
from typing import IO

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.float64]

ORDER = 3


class NgramTable:
    """Trigram counts and their Witten-Bell model; bigram and unigram counts are sums of the trigrams'.

    A context is one number, `first * vocab_size + second`; its shorter forms are remainders of it.

    Args:
        trigrams: [M, 3], distinct trigrams of token ids, in any order. None at all is a table too.
        counts: [M], how often each was seen, at least once.
        vocab_size: V; token ids are below it.

    Raises:
        ValueError: a token id that is not in the vocabulary.
    """

    def __init__(self, trigrams: IntArray, counts: IntArray, vocab_size: int) -> None:
        self.trigrams = np.asarray(trigrams, np.int64).reshape(-1, ORDER)
        self.counts = np.asarray(counts, np.int64)
        self.vocab_size = vocab_size
        lowest, highest = self.trigrams.min(initial=0), self.trigrams.max(initial=0)
        if lowest < 0 or highest >= vocab_size:
            raise ValueError(f"trigrams: expected token ids from 0 to {vocab_size - 1}, got {lowest} to {highest}")
        self._orders: list[_Order] = []
        first, second, third = self.trigrams.T
        for n in range(ORDER):
            order = _Order((first * vocab_size + second) % vocab_size**n, third, self.counts, vocab_size)
            self._orders.append(order)
            # What leads in a context is a matter of the orders so far.
            order.rank(self.probability(order.context_of_pair, order.token_of_pair))

    @classmethod
    def count(cls, documents: Iterable[Sequence[int]], vocab_size: int) -> NgramTable:
        """Count the trigrams within each document, given as token ids."""
        windows = [sliding_window_view(np.asarray(d, np.int64), ORDER) for d in documents if len(d) >= ORDER]
        seen = np.concatenate([np.empty((0, ORDER), np.int64), *windows])
        trigrams, counts = np.unique(seen, axis=0, return_counts=True)
        return cls(trigrams, counts, vocab_size)

    @classmethod
    def load(cls, file: str | PathLike[str] | IO[bytes]) -> NgramTable:
        with np.load(file, allow_pickle=False) as data:
            return cls(data["trigrams"], data["counts"], int(data["vocab_size"]))

    def save(self, file: str | PathLike[str] | IO[bytes]) -> None:
        """Write a compressed .npz file, in the smallest integers that hold the numbers."""
        np.savez_compressed(
            file,
            trigrams=self.trigrams.astype(np.min_scalar_type(self.vocab_size - 1)),
            counts=self.counts.astype(np.min_scalar_type(self.counts.max(initial=0))),
            vocab_size=np.int64(self.vocab_size),
        )

    def probability(self, context: IntArray, token: IntArray) -> FloatArray:
        """P(token | context), element by element."""
        probability: FloatArray = np.full(context.shape, 1 / self.vocab_size)
        for n, order in enumerate(self._orders):
            probability = order.interpolate(context % self.vocab_size**n, token, probability)
        return probability

    def leaders(self, context: IntArray) -> IntArray:
        """[3, ...]: the most probable token of those seen after each form of the context; 0 where none was.

        The most probable token of all is among them: what was not seen after a context is ranked by the
        shorter one, whose leader either was not seen after the longer one, or gains by having been.
        """
        return np.stack([order.leader(context % self.vocab_size**n) for n, order in enumerate(self._orders)])


class _Order:
    """Counts of one order: contexts, and pairs of a context and its successor, both sorted.

    Both end with an entry that stands for whatever was not seen: with it, no lookup needs a special case.
    """

    def __init__(self, context: IntArray, token: IntArray, counts: IntArray, vocab_size: int) -> None:
        self.vocab_size = vocab_size
        contexts, index = np.unique(context, return_inverse=True)
        pairs, pair_index = np.unique(index * vocab_size + token, return_inverse=True)
        context_of_pair = pairs // vocab_size
        self.context_of_pair = contexts[context_of_pair]
        self.token_of_pair = pairs % vocab_size

        unseen = np.iinfo(np.int64).max
        self._contexts = np.append(contexts, unseen)
        self._pairs = np.append(pairs, unseen)
        self._counts = np.append(np.bincount(pair_index, counts, len(pairs)), 0)
        # A context that was not seen says nothing: C = 0, and T = 1 leaves all to the shorter one.
        self._totals = np.append(np.bincount(index, counts, len(contexts)), 0)
        self._types = np.append(np.bincount(context_of_pair, minlength=len(contexts)), 1)
        self._leaders = np.zeros(len(self._contexts), np.int64)

    def interpolate(self, context: IntArray, token: IntArray, shorter: FloatArray) -> FloatArray:
        """P(token | context), given what the shorter context says."""
        at = _find(self._contexts, context)
        count = self._counts[_find(self._pairs, at * self.vocab_size + token)]
        types = self._types[at]
        probability: FloatArray = (count + types * shorter) / (self._totals[at] + types)
        return probability

    def rank(self, probability: FloatArray) -> None:
        """Remember the most probable successor of each context, the lowest token id of equals."""
        at = _find(self._contexts, self.context_of_pair)
        order = np.lexsort((-self.token_of_pair, probability, at))
        # Of what is written to one place, the last stays.
        self._leaders[at[order]] = self.token_of_pair[order]

    def leader(self, context: IntArray) -> IntArray:
        leader: IntArray = self._leaders[_find(self._contexts, context)]
        return leader


def _find(ordered: IntArray, wanted: IntArray) -> IntArray:
    """Where each wanted number stands; the last place, which is for the unseen, if nowhere."""
    at = np.searchsorted(ordered, wanted)
    return np.where(ordered[at] == wanted, at, len(ordered) - 1)
