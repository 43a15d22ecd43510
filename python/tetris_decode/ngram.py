"""An n-gram drafter: n-grams of the request itself, and behind them those of a background table."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tetris_decode.batch import Batch
from tetris_decode.drafting import Drafts
from tetris_decode.ngram_table import FloatArray, IntArray, NgramTable

# The request's own n-grams: the longest has a context of so many tokens.
LONGEST_CONTEXT = 5
# A request is short: what its few n-grams leave to the shorter context counts so many times as much as Witten and
# Bell would have it. That and the longest context were chosen on docstring prompts, which no benchmark decodes.
RESERVE = 4


class NgramDrafter:
    """Drafts the most probable next token of an interpolated n-gram model, then the next given that one.

    The request's own 6-grams come first, then its 5-grams and so on to bigrams, prompt and output alike; what they
    leave open (Witten and Bell, see `ngram_table`, with four times the reserve for the shorter context) is the
    table's to say. No model is run and nothing is kept from step to step; no Python loop goes over tokens or
    requests.

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
        # The last token, the one before it and so on. A short request is read as if tokens 0 stood before it.
        recent = [
            np.where(ends > back, tokens[rows, np.maximum(ends - 1 - back, 0)], 0) for back in range(LONGEST_CONTEXT)
        ]
        ids = np.empty((len(ends), num_drafts), np.int64)
        probability = np.empty(ids.shape)
        for j in range(num_drafts):
            ids[:, j], probability[:, j] = self._best(tokens, has_successor, recent)
            recent = [ids[:, j], *recent[:-1]]
        logprobs = torch.from_numpy(np.log(probability)).float()
        return Drafts(torch.from_numpy(ids).to(lens.device), logprobs.to(lens.device), lens)

    def _best(
        self, tokens: IntArray, has_successor: NDArray[np.bool_], recent: list[IntArray]
    ) -> tuple[IntArray, FloatArray]:
        """The most probable token after `recent`, latest first, in each request, and its probability; [N] each."""
        vocab_size = self.table.vocab_size
        last, before, *_ = recent
        context = before * vocab_size + last
        leaders = self.table.leaders(context)

        # What has followed the last token in the request, as a flat list, and the table's leaders, seen 0 times.
        row, at = np.nonzero(has_successor & (tokens == last[:, None]))
        seen = [np.ones(len(row))]
        for back in range(1, LONGEST_CONTEXT):
            seen.append(seen[-1] * ((at >= back) & (tokens[row, at - back] == recent[back][row])))
        row = np.concatenate([row, *[np.arange(len(last))] * len(leaders)])
        token = np.concatenate([tokens[row[: len(at)], at + 1], leaders.ravel()])
        candidates, index = np.unique(row * vocab_size + token, return_inverse=True)
        row, token = candidates // vocab_size, candidates % vocab_size

        probability = self.table.probability(context[row], token)
        for longer in seen:
            count = np.bincount(index[: len(at)], longer, len(candidates))
            probability = _interpolate(count, row, len(last), probability)

        # Of what is written to one place, the last stays: the most probable, the lowest token id of equals.
        order = np.lexsort((-token, probability, row))
        best = np.empty(len(last), np.int64)
        best[row[order]] = order
        return token[best], probability[best]


def _interpolate(count: IntArray | FloatArray, row: IntArray, num_rows: int, shorter: FloatArray) -> FloatArray:
    """Witten-Bell within each row: `count` of each candidate in its context, `shorter` from a shorter one."""
    total = np.bincount(row, count, num_rows)[row]
    types = np.bincount(row, count > 0, num_rows)[row]
    reserve = RESERVE * np.maximum(types, 1)
    # A context that was not seen leaves all to the shorter one.
    probability: FloatArray = (count + reserve * shorter) / (total + reserve)
    return probability
