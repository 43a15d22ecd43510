"""Model Runner V2, which selects by itself where `enable_adaptive_verification` is on: by `tetris_kernels.select`
instead, and with a fixed budget if one is asked for. Tested against vLLM's own allocator, on a CPU; not run on a GPU.
"""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor

from tetris_kernels import select
from tetris_vllm.settings import Budget


def assign_draft_token_budget(
    confidence_probs: Tensor, idx_mapping: Tensor, capacities: Tensor, draft_budget: int, num_steps: int
) -> None:
    """What vLLM's function of this name does, with exactly `draft_budget` drafts and prefixes where survivals tie.

    Args:
        confidence_probs: [R, K] float32, estimates of acceptance, of all slots for requests.
        idx_mapping: [N] int32 or int64, the slot of each request of the batch.
        capacities: [N] int32, drafts that each has; overwritten by how many are verified.
        draft_budget: how many in all.
        num_steps: K.
    """
    logprobs = confidence_probs.index_select(0, idx_mapping).narrow(1, 0, num_steps).log_()
    capacities.copy_(select(logprobs, draft_budget, draft_lens=capacities).lens)


def fixed_budget_in(manager_class: Any, budget: Budget) -> None:
    """Wrap `get_num_tokens` of `AdaptiveVerificationManager`: the step has this budget, in place of vLLM's own, by
    costs. No more than the requests' drafts, nor than the sampler's logits hold, as vLLM has it.
    """
    original = manager_class.get_num_tokens

    @functools.wraps(original)
    def get_num_tokens(self: Any, num_tokens_per_req: dict[str, int], draft_tokens: dict[str, list[int]]) -> int:
        original(self, num_tokens_per_req, draft_tokens)
        drafts, others, _ = self._batch_budget
        drafting = sum(count > 0 for count in drafts.values())
        wanted = round(budget.amount * drafting) if budget.kind == "per request" else int(budget.amount)
        room = max(0, self._max_total_logits - len(drafts) * self.num_bonus_tokens)
        allowed = min(wanted, sum(drafts.values()), room)
        self._batch_budget = drafts, others, allowed
        tokens: int = sum(others.values()) + allowed
        return tokens

    manager_class.get_num_tokens = get_num_tokens


def install(module: Any, budget: Budget) -> None:
    """In `vllm.v1.worker.gpu.spec_decode.adaptive_verification`. A budget of costs is vLLM's own; "all" changes
    nothing."""
    if budget.kind == "all":
        return
    module._assign_draft_token_budget_compiled = torch.compiler.disable(assign_draft_token_budget)
    if budget.kind in ("absolute", "per request"):
        fixed_budget_in(module.AdaptiveVerificationManager, budget)
