"""Mistakes that are easy to make with ties, each with the rule that makes it."""

from __future__ import annotations

import torch
from cases import Target, peaked
from torch import Tensor

from tetris_kernels import select


def released_rule(logprobs: Tensor, budget: int) -> Tensor:
    """lens by the paper's released code: a flat top-k, then the deepest hit of each row."""
    num_requests, num_drafts = logprobs.shape
    survival = logprobs.cumsum(1)
    index = survival.flatten().topk(budget).indices
    lens = torch.zeros(num_requests, dtype=torch.int64)
    return lens.scatter_reduce(0, index // num_drafts, index % num_drafts + 1, "amax")


def threshold_rule(logprobs: Tensor, budget: int) -> Tensor:
    """lens by a threshold: all that are as good as the last one of the budget."""
    survival = logprobs.cumsum(1)
    threshold = survival.flatten().sort(descending=True).values[budget - 1]
    return (survival >= threshold).sum(1)


def batch_of_peaked_logits(seed: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """[8, 6] log-probs of the drawn tokens of a confident drafter over 50 tokens."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(8, 6, 50, generator=generator)
    logits[..., 0] += 18 + 4 * torch.randn(8, 6, generator=generator)
    return logits.to(dtype).log_softmax(-1)[..., 0]


def test_certain_drafts_overflow_the_released_rule(target: Target) -> None:
    logprobs = torch.zeros(4, 5)
    assert released_rule(logprobs, 8).sum() == 10
    assert threshold_rule(logprobs, 8).sum() == 20
    picked = select(logprobs.to(target.device), 8, backend=target.backend)
    assert picked.lens.tolist() == [2, 2, 2, 2]


def test_peaked_batches_overflow_the_released_rule(target: Target) -> None:
    budget = 20
    overflows = 0
    for seed in range(300):
        logprobs = batch_of_peaked_logits(seed, torch.bfloat16 if seed % 2 else torch.float32)
        overflows += int(released_rule(logprobs.float(), budget).sum() > budget)
        if target.backend == "torch" or seed < 30:
            picked = select(logprobs.to(target.device), budget, backend=target.backend)
            assert picked.cu_lens[-1] == picked.lens.sum() == budget
    assert overflows > 0


def test_thresholds_admit_more_than_the_budget(target: Target) -> None:
    logprobs = torch.tensor([[0.0, -1.0], [-1.0, -1.0], [-1.0, 0.0]])
    assert threshold_rule(logprobs, 2).tolist() == [2, 1, 2]
    assert select(logprobs.to(target.device), 2, backend=target.backend).lens.tolist() == [1, 1, 0]


def test_the_released_rule_is_ours_where_nothing_ties(target: Target) -> None:
    for seed in range(5):
        logprobs = peaked(8, 6, seed) - 0.01
        picked = select(logprobs.to(target.device), 20, backend=target.backend)
        assert picked.lens.tolist() == released_rule(logprobs, 20).tolist()


def log_softmax_of(p: float, dtype: torch.dtype) -> float:
    """What a drafter reports of a token of probability p, the rest on one other token."""
    logits = torch.tensor([p, 1 - p], dtype=torch.float64).log().to(dtype)
    return logits.log_softmax(0)[0].item()


def test_log_softmax_gives_exact_zeros() -> None:
    assert log_softmax_of(0.99999997, torch.float32) == 0.0
    assert log_softmax_of(0.9999, torch.float32) < 0.0
    assert log_softmax_of(0.9997, torch.bfloat16) == 0.0
    assert log_softmax_of(0.99, torch.bfloat16) < 0.0


def test_a_sum_in_float32_rounds_what_the_keys_keep_apart(target: Target) -> None:
    # 64 nats and a unit: float32 has no room for the unit beyond 256 nats, integers have.
    logprobs = torch.full((2, 6), -64.0)
    logprobs[0, 5] = -1 - 2.0**-16
    logprobs[1, 5] = -1
    assert logprobs.cumsum(1)[0, 5] == logprobs.cumsum(1)[1, 5]
    assert select(logprobs.to(target.device), 11, backend=target.backend).lens.tolist() == [5, 6]
