"""The n-gram drafter against the definition of its model."""

from __future__ import annotations

import math
import random

import ngram_oracle
import numpy as np
import pytest
import torch

from tetris_decode.batch import Batch
from tetris_decode.ngram import NgramDrafter
from tetris_decode.ngram_table import NgramTable
from tetris_decode.smollm2 import ngram_table

VOCAB_SIZE = 11


def documents(seed: int, *lens: int, skew: float = 2.0) -> list[list[int]]:
    """Low tokens are frequent, so that n-grams repeat."""
    rng = random.Random(seed)
    return [[int(VOCAB_SIZE * rng.random() ** skew) for _ in range(n)] for n in lens]


CORPORA = {
    "nothing": [],
    "too short": [[1], [2, 3]],
    "one trigram": [[1, 2, 3]],
    "small": documents(0, 12, 1, 2, 3, 40),
    "large": documents(1, 400, 300),
    "one token": [[4] * 30],
}
CONTEXTS = [(first, second) for first in range(VOCAB_SIZE) for second in range(VOCAB_SIZE)]


@pytest.fixture(params=CORPORA.values(), ids=CORPORA)
def corpus(request):
    return request.param


def test_table_counts(corpus):
    table = NgramTable.count(corpus, VOCAB_SIZE)
    assert dict(zip(map(tuple, table.trigrams.tolist()), table.counts.tolist(), strict=True)) == ngram_oracle.count(
        corpus
    )


def test_table_probabilities(corpus):
    table = NgramTable.count(corpus, VOCAB_SIZE)
    model = ngram_oracle.Model(ngram_oracle.count(corpus), VOCAB_SIZE)
    for first, second in CONTEXTS:
        got = table.probability(np.full(VOCAB_SIZE, first * VOCAB_SIZE + second), np.arange(VOCAB_SIZE))
        expected = [model.probability([first, second], token) for token in range(VOCAB_SIZE)]
        np.testing.assert_allclose(got, expected, rtol=1e-12)
        assert got.sum() == pytest.approx(1)


def test_the_best_token_is_among_the_leaders(corpus):
    table = NgramTable.count(corpus, VOCAB_SIZE)
    model = ngram_oracle.Model(ngram_oracle.count(corpus), VOCAB_SIZE)
    for first, second in CONTEXTS:
        leaders = table.leaders(np.array(first * VOCAB_SIZE + second))
        best = max(model.probability([first, second], int(token)) for token in leaders)
        assert best == pytest.approx(model.best([first, second])[1], rel=1e-12)


def test_table_survives_a_file(corpus, tmp_path):
    table = NgramTable.count(corpus, VOCAB_SIZE)
    table.save(tmp_path / "table.npz")
    loaded = NgramTable.load(tmp_path / "table.npz")
    assert loaded.vocab_size == VOCAB_SIZE
    np.testing.assert_array_equal(loaded.trigrams, table.trigrams)
    np.testing.assert_array_equal(loaded.counts, table.counts)


@pytest.mark.parametrize("seed", range(4))
def test_drafts_are_the_most_probable_tokens(corpus, seed):
    """Every draft of ragged requests, one of them a single token, and its probability."""
    requests = documents(10 + seed, 30, 1, 2, 9, 120)
    drafts = propose(corpus, requests, num_drafts=5)
    for row, request in enumerate(requests):
        model = ngram_oracle.Model(ngram_oracle.count(corpus), VOCAB_SIZE, request)
        history = list(request)
        for j in range(5):
            _, probability = model.best(history)
            assert drafts.logprobs[row, j].item() == pytest.approx(math.log(probability), abs=1e-6)
            got = int(drafts.ids[row, j])
            assert model.probability(history, got) == pytest.approx(probability, rel=1e-12)
            history.append(got)


def propose(corpus, requests, num_drafts, max_new_tokens=50):
    drafter = NgramDrafter(NgramTable.count(corpus, VOCAB_SIZE))
    batch = Batch(requests, max_new_tokens, num_drafts=num_drafts)
    # What stands behind a request is nobody's business.
    batch.tokens.masked_fill_(torch.arange(batch.tokens.shape[1]) >= batch.lens[:, None], 3)
    drafter.start(batch)
    return drafter.propose(batch, num_drafts)


def test_shapes_and_types():
    drafts = propose([], documents(3, 5, 6), num_drafts=4)
    assert drafts.ids.shape == drafts.logprobs.shape == (2, 4)
    assert (drafts.ids.dtype, drafts.logprobs.dtype, drafts.lens.dtype) == (torch.int64, torch.float32, torch.int64)
    assert drafts.lens.tolist() == [4, 4]
    assert (drafts.logprobs <= 0).all() and drafts.logprobs.isfinite().all()


def test_a_request_near_its_end_gets_fewer_drafts():
    assert propose([], documents(3, 5, 6), num_drafts=4, max_new_tokens=3).lens.tolist() == [2, 2]


def test_what_repeats_is_copied():
    phrase = [1, 7, 4, 9, 2]
    drafts = propose([], [phrase * 3], num_drafts=5)
    assert drafts.ids.tolist() == [phrase]
    assert (drafts.logprobs.exp() > 0.7).all()


def test_equally_probable_tokens_draft_the_lowest():
    assert propose([[0, 1, 5], [0, 1, 3]], [[0, 1]], num_drafts=1).ids.tolist() == [[3]]
    assert propose([], [[7]], num_drafts=1).ids.tolist() == [[0]]
    assert propose([], [[1, 7, 1, 5, 1]], num_drafts=1).ids.tolist() == [[5]]


@pytest.mark.parametrize("token", [11, -1])
def test_tokens_beyond_the_vocabulary_are_refused(token):
    with pytest.raises(ValueError, match="trigrams: expected token ids from 0 to 10, got"):
        NgramTable.count([[5, token, 7, 8]], VOCAB_SIZE)


def test_the_table_of_the_package():
    table = ngram_table()
    assert table.vocab_size == 49152
    assert 40_000 < table.counts.sum() < 60_000
    assert table.trigrams.min() >= 0 and table.trigrams.max() < table.vocab_size
    assert len(np.unique(table.trigrams, axis=0)) == len(table.trigrams) and table.counts.min() >= 1
