"""The state of a batch: what is appended, where requests end, where drafts go."""

from __future__ import annotations

import torch

from tetris_decode.batch import Batch


def test_a_new_batch():
    batch = Batch([[1, 2, 3], [4]], 5, num_drafts=2)
    assert batch.lens.tolist() == [3, 1] and batch.max_lens.tolist() == [8, 6]
    assert batch.done.tolist() == [False, False]
    assert batch.max_drafts.tolist() == [4, 4], "the last token needs no draft"
    assert batch.outputs() == [[], []]


def test_append_takes_the_counted_tokens():
    batch = Batch([[1, 2, 3], [4], [5, 6]], 5, num_drafts=2)
    taken = batch.append(torch.tensor([[7, 8, 9], [7, 8, 9], [7, 8, 9]]), torch.tensor([3, 1, 0]))
    assert taken.tolist() == [3, 1, 0]
    assert batch.outputs() == [[7, 8, 9], [7], []]
    assert batch.lens.tolist() == [6, 2, 2]
    assert batch.tokens[1, 2:].eq(0).all(), "what does not count is not written"


def test_an_end_token_ends_a_request():
    batch = Batch([[1], [1], [1], [9]], 6, eos_token_ids=[8, 9], num_drafts=3)
    rows = torch.tensor([[7, 8, 7, 9], [7, 7, 8, 7], [9, 9, 9, 9], [7, 7, 7, 7]])
    taken = batch.append(rows, torch.tensor([4, 2, 1, 4]))
    assert taken.tolist() == [2, 2, 1, 4]
    assert batch.done.tolist() == [True, False, True, False], "an end beyond the count, or in the prompt, is none"
    assert batch.outputs() == [[7, 8], [7, 7], [9], [7, 7, 7, 7]]
    assert batch.max_drafts.tolist() == [0, 3, 0, 1]


def test_a_finished_request_takes_nothing_more():
    batch = Batch([[1], [2]], 2, eos_token_ids=[5])
    batch.append(torch.tensor([[5], [3]]), torch.tensor([1, 1]))
    assert batch.append(torch.tensor([[6], [6]]), torch.tensor([1, 1])).tolist() == [0, 1]
    assert batch.outputs() == [[5], [3, 6]]
    assert batch.done.tolist() == [True, True]


def test_the_length_is_a_limit():
    batch = Batch([[1], [2, 2]], 3, num_drafts=4)
    taken = batch.append(torch.tensor([[6, 7, 8, 9, 6]] * 2), torch.tensor([5, 3]))
    assert taken.tolist() == [3, 3]
    assert batch.done.all() and batch.outputs() == [[6, 7, 8]] * 2


def test_anchors_and_contexts_of_running_requests():
    batch = Batch([[1, 2, 3], [4]], 5, eos_token_ids=[7])
    batch.append(torch.tensor([[5, 6], [7, 0]]), torch.tensor([2, 1]))
    assert batch.last_tokens.tolist() == [6, 7]
    assert batch.context_lens.tolist() == [4, -1], "a finished request sits out"


def test_there_is_room_for_drafts_of_the_longest_request_at_its_end():
    batch = Batch([[1, 2, 3], [4]], 2, num_drafts=4)
    batch.append(torch.tensor([[5, 5], [5, 5]]), torch.tensor([2, 1]))
    assert batch.append(torch.full((2, 5), 6), torch.tensor([5, 5])).tolist() == [0, 1]
