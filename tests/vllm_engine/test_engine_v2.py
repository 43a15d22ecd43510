"""Model Runner V2's selection against the plugin's, on a CPU: vLLM's own function and manager, without its runner."""

from __future__ import annotations

import random
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vllm.v1.worker.gpu.spec_decode import adaptive_verification as theirs

from tetris_vllm import model_runner_v2, seams
from tetris_vllm.settings import Budget

K, SLOTS = 5, 12


def a_batch(seed: int, probs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Confidences of all slots, the slots of a batch, and how many drafts each request has."""
    rng = random.Random(seed)
    rows = rng.sample(range(SLOTS), rng.randint(1, SLOTS))
    capacities = [rng.choice([0, 1, K, K, rng.randint(0, K)]) for _ in rows]
    return probs, torch.tensor(rows), torch.tensor(capacities, dtype=torch.int32)


def both(probs, rows, capacities, budget) -> tuple[list[int], list[int]]:
    ours, vllms = capacities.clone(), capacities.clone()
    model_runner_v2.assign_draft_token_budget(probs, rows, ours, budget, K)
    theirs._assign_draft_token_budget(probs, rows, vllms, budget, K)
    return ours.tolist(), vllms.tolist()


def test_the_places_are_there():
    assert seams.missing(seams.SEAMS_V2) == []


@pytest.mark.parametrize("seed", range(60))
def test_the_same_drafts_where_none_tie(seed):
    generator = torch.Generator().manual_seed(seed)
    probs = 0.02 + 0.96 * torch.rand(SLOTS, K, generator=generator)
    before = probs.clone()
    probs, rows, capacities = a_batch(seed, probs)
    for budget in range(1, int(capacities.sum())):
        ours, vllms = both(probs, rows, capacities, budget)
        assert ours == vllms
    assert torch.equal(probs, before)


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_exactly_the_budget_where_all_tie(value):
    """In order of position, then of requests; vLLM's top-k promises no order there."""
    capacities = torch.tensor([5, 0, 2, 5], dtype=torch.int32)
    for budget in range(13):
        ours = capacities.clone()
        model_runner_v2.assign_draft_token_budget(torch.full((SLOTS, K), value), torch.arange(4), ours, budget, K)
        assert ours.sum() == budget
        assert (ours <= capacities).all()
    ours = capacities.clone()
    model_runner_v2.assign_draft_token_budget(torch.ones(SLOTS, K), torch.arange(4), ours, 7, K)
    assert ours.tolist() == [3, 0, 2, 2]


@pytest.fixture
def manager():
    """One with its host's part only, in a class of its own, which may be wrapped."""
    made = object.__new__(type("Manager", (theirs.AdaptiveVerificationManager,), {}))
    names = "abcd"
    made.num_speculative_steps, made.num_bonus_tokens, made._max_total_logits = K, 1, 100
    made.cost_tables = np.zeros(20), np.linspace(1, 2, 200)
    made._stale_idx = 0
    made._stale_confidences = [SimpleNamespace(np=np.full((SLOTS, K), 0.5, dtype=np.float32))]
    made.req_states = SimpleNamespace(
        req_id_to_index=dict(zip(names, range(4), strict=True)),
        num_computed_tokens_np=np.full(SLOTS, 9),
        prefill_len=SimpleNamespace(np=np.full(SLOTS, 3)),
    )
    made._batch_budget = None
    return made


TOKENS = {"a": 6, "b": 3, "c": 1, "d": 4}  # one of each is no draft; d reads two tokens of its prompt
DRAFTS = {"a": [1] * 5, "b": [1] * 2, "d": [1] * 2}


@pytest.mark.parametrize(
    ("budget", "drafts"),
    [
        (Budget("absolute", 0), 0),
        (Budget("absolute", 4), 4),
        (Budget("absolute", 99), 9),
        (Budget("per request", 1), 3),
        (Budget("per request", 2.4), 7),
    ],
)
def test_a_fixed_budget(manager, budget, drafts):
    model_runner_v2.fixed_budget_in(type(manager), budget)
    assert manager.get_num_tokens(TOKENS, DRAFTS) == 5 + drafts
    per_request, others, chosen = manager._batch_budget
    assert per_request == {"a": 5, "b": 2, "c": 0, "d": 2}
    assert others == {"a": 1, "b": 1, "c": 1, "d": 2}
    assert chosen == drafts


def test_a_fixed_budget_leaves_room_for_the_logits(manager):
    manager._max_total_logits = 7
    model_runner_v2.fixed_budget_in(type(manager), Budget("absolute", 9))
    assert manager.get_num_tokens(TOKENS, DRAFTS) == 5 + 3


@pytest.mark.parametrize(("kind", "wrapped"), [("all", 0), ("absolute", 2), ("per request", 2), ("adaptive", 1)])
def test_what_is_replaced(kind, wrapped):
    own = SimpleNamespace(
        _assign_draft_token_budget_compiled=theirs._assign_draft_token_budget_compiled,
        AdaptiveVerificationManager=type("Manager", (theirs.AdaptiveVerificationManager,), {}),
    )
    model_runner_v2.install(own, Budget(kind, 1))
    assert (own._assign_draft_token_budget_compiled is not theirs._assign_draft_token_budget_compiled) == (wrapped > 0)
    assert ("get_num_tokens" in vars(own.AdaptiveVerificationManager)) == (wrapped == 2)
    if wrapped:
        capacities = torch.tensor([5, 5], dtype=torch.int32)
        own._assign_draft_token_budget_compiled(torch.ones(3, K), torch.tensor([2, 0]), capacities, 3, K)
        assert capacities.tolist() == [2, 1]
