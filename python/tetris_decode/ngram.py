"""An n-gram drafter: trigrams of the request itself, and behind them those of a background table."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tetris_decode.batch import Batch
from tetris_decode.drafting import Drafts
from tetris_decode.ngram_table import FloatArray, IntArray, NgramTable


class NgramDrafter:
    """Drafts the most probable next token of an interpolated trigram model, then the next given that one.

    The request's own trigrams come first, then its bigrams, prompt and output alike; what they leave open
    (Witten and Bell, see `ngram_table`) is the table's to say. No model is run and nothing is kept from step
    to step; no Python loop goes over tokens or requests.

    Args:
        table: background counts. An empty one leaves it to the request's own n-grams.
    """

    def __init__(self, table: NgramTable) -> None:
        self.table = table

    @property
    def vocab_size(self) -> int:
        return self.table.vocab_size

    def start(self, batch: Batch) -> None:
        """Nothing to do: all is in the tokens."""

    def propose(self, batch: Batch, num_drafts: int) -> Drafts:
        lens = batch.max_drafts.clamp(max=num_drafts)
        # Host work: on another device than the CPU this waits for it.
        tokens, ends = batch.tokens.cpu().numpy(), batch.lens.cpu().numpy()
        rows = np.arange(len(ends))
        has_successor = np.arange(tokens.shape[1]) < ends[:, None] - 1
        # A request of one token is read as if token 0 stood before it.
        first, second = np.where(ends > 1, tokens[rows, ends - 2], 0), tokens[rows, ends - 1]
        ids = np.empty((len(ends), num_drafts), np.int64)
        probability = np.empty(ids.shape)
        for j in range(num_drafts):
            ids[:, j], probability[:, j] = self._best(tokens, has_successor, first, second)
            first, second = second, ids[:, j]
        logprobs = torch.from_numpy(np.log(probability)).float()
        return Drafts(torch.from_numpy(ids).to(lens.device), logprobs.to(lens.device), lens)

    def _best(
        self, tokens: IntArray, has_successor: NDArray[np.bool_], first: IntArray, second: IntArray
    ) -> tuple[IntArray, FloatArray]:
        """The most probable token after (first, second) in each request, and its probability; [N] each."""
        vocab_size = self.table.vocab_size
        context = first * vocab_size + second
        leaders = self.table.leaders(context)

        # What has followed `second` in the request, as a flat list, and the table's leaders, seen 0 times.
        row, at = np.nonzero(has_successor & (tokens == second[:, None]))
        bigram = np.ones(len(row))
        trigram = ((at > 0) & (tokens[row, at - 1] == first[row])).astype(np.float64)
        row = np.concatenate([row, *[np.arange(len(first))] * len(leaders)])
        token = np.concatenate([tokens[row[: len(at)], at + 1], leaders.ravel()])
        candidates, index = np.unique(row * vocab_size + token, return_inverse=True)
        row, token = candidates // vocab_size, candidates % vocab_size

        probability = self.table.probability(context[row], token)
        for seen in (bigram, trigram):
            count = np.bincount(index[: len(at)], seen, len(candidates))
            probability = _interpolate(count, row, len(first), probability)

        # Of what is written to one place, the last stays: the most probable, the lowest token id of equals.
        order = np.lexsort((-token, probability, row))
        best = np.empty(len(first), np.int64)
        best[row[order]] = order
        return token[best], probability[best]


def _interpolate(count: IntArray | FloatArray, row: IntArray, num_rows: int, shorter: FloatArray) -> FloatArray:
    """Witten-Bell within each row: `count` of each candidate in its context, `shorter` from a shorter one."""
    total = np.bincount(row, count, num_rows)[row]
    types = np.bincount(row, count > 0, num_rows)[row]
    # A context that was not seen leaves all to the shorter one.
    probability: FloatArray = (count + np.maximum(types, 1) * shorter) / (total + np.maximum(types, 1))
    return probability
