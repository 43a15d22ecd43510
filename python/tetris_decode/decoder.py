"""Batched greedy speculative decoding: the loop around `tetris_kernels.select`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedModel

from tetris_decode.batch import Batch
from tetris_decode.drafting import Drafter, Drafts
from tetris_decode.packed import Forward, PackedModel
from tetris_decode.policies import NO_SPECULATION, Policy


class Step(NamedTuple):
    """One step of a whole batch. A request that is running is verified once in each step.

    requests: running ones.
    drafted, verified, accepted: drafts, in all.
    emitted: tokens, in all. Those after an end do not count, so it may be less than accepted + requests.
    draft_seconds, select_seconds, seconds: wall time of drafting, of the policy, and of the whole step.
    """

    requests: int
    drafted: int
    verified: int
    accepted: int
    emitted: int
    draft_seconds: float
    select_seconds: float
    seconds: float


class Generation(NamedTuple):
    """outputs: the tokens that each request generated. prefill_seconds: reading the prompts."""

    outputs: list[list[int]]
    prefill_seconds: float
    steps: list[Step]


@torch.inference_mode()
def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    *,
    drafter: Drafter | None = None,
    policy: Policy | None = None,
    eos_token_ids: Sequence[int] = (),
    on_step: Callable[[Step], None] | None = None,
) -> Generation:
    """Decode all prompts together, greedily; the output is that of the target model, whatever is drafted.

    In floating point, nearly: the shapes of a verification differ from those of plain decoding, and so may the
    last bits of logits, which decides between tokens of nearly equal logits. With float32 that is rare, with
    bfloat16 it happens.

    Args:
        model: the target, a causal model of transformers (see `PackedModel`), in evaluation mode.
        prompts: token ids of each request, at least one.
        max_new_tokens: how many tokens each request generates at most.
        drafter, policy: what is drafted, and what of it is verified. By default nothing is.
        eos_token_ids: tokens that end a request; they are part of its output.
        on_step: called after each step, e.g. to show progress.

    Raises:
        ValueError: no prompt, an empty prompt, max_new_tokens below 1, a policy that drafts without a drafter,
            a model that `PackedModel` refuses.
    """
    policy = policy or NO_SPECULATION
    _check(prompts, max_new_tokens, drafter, policy.length)
    batch = Batch(prompts, max_new_tokens, eos_token_ids=eos_token_ids, num_drafts=policy.length, device=model.device)
    target = PackedModel(model, len(prompts), batch.tokens.shape[1])
    if drafter:
        drafter.start(batch)

    began = perf_counter()
    # All but the last token of each prompt: that one is the anchor of the first verification.
    target.read(batch.tokens, torch.zeros_like(batch.lens), batch.lens - 1)
    prefill_seconds = perf_counter() - began

    steps = []
    while num_active := int((~batch.done).sum()):
        steps.append(_step(target, batch, drafter, policy, num_active))
        if on_step:
            on_step(steps[-1])
    return Generation(batch.outputs(), prefill_seconds, steps)


def _step(target: PackedModel, batch: Batch, drafter: Drafter | None, policy: Policy, num_active: int) -> Step:
    """Draft, select, verify, accept."""
    began = perf_counter()
    num_drafts = policy.num_drafts(num_active)
    drafts = drafter.propose(batch, num_drafts) if drafter and num_drafts else Drafts.none(batch.tokens)
    drafted = perf_counter()
    lens = policy.select(drafts, num_active).lens.long()
    selected = perf_counter()

    # The last token, which is not in the cache yet, and the selected drafts behind it.
    batch.put_drafts(drafts.ids)
    verification = target.forward(batch.tokens, batch.lens - 1, (1 + lens).masked_fill(batch.done, 0))
    tokens, counts = accept_greedy(verification, drafts.ids, lens)
    emitted = batch.append(tokens, counts)
    accepted = (counts - 1).clamp(min=0)
    totals = torch.stack([each.sum() for each in (drafts.lens, lens, accepted, emitted)])
    num_drafted, num_verified, num_accepted, num_emitted = totals.tolist()
    return Step(
        requests=num_active,
        drafted=num_drafted,
        verified=num_verified,
        accepted=num_accepted,
        emitted=num_emitted,
        draft_seconds=drafted - began,
        select_seconds=selected - drafted,
        seconds=perf_counter() - began,
    )


def accept_greedy(verification: Forward, draft_ids: Tensor, lens: Tensor) -> tuple[Tensor, Tensor]:
    """What each request may emit: its drafts as long as they are the target's choice, and the token after them.

    Args:
        verification: logits at each request's anchor and its `lens[r]` drafts.
        draft_ids: [N, K] int64.
        lens: [N] int64, how many of them were verified.

    Returns:
        tokens [N, J] int64, the target's choices, and counts [N] int64, how many of them count: accepted
        drafts + 1, or 0 for a request that was not in the verification.
    """
    choices = verification.ragged.padded(verification.logits.argmax(-1))
    num_drafts = choices.shape[1] - 1
    verified = torch.arange(num_drafts, device=lens.device) < lens[:, None]
    matches = (choices[:, :num_drafts] == draft_ids[:, :num_drafts]) & verified
    counts = matches.int().cumprod(1).sum(1) + 1
    return choices, counts.masked_fill(verification.ragged.counts == 0, 0)


def _check(prompts: Sequence[Sequence[int]], max_new_tokens: int, drafter: Drafter | None, num_drafts: int) -> None:
    if not prompts:
        raise ValueError("prompts: expected at least one, got none")
    empty = [i for i, prompt in enumerate(prompts) if not len(prompt)]
    if empty:
        raise ValueError(f"prompts: expected at least one token each, got none in prompt {empty[0]}")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens: expected 1 or more, got {max_new_tokens}")
    if num_drafts and drafter is None:
        raise ValueError(f"drafter: expected one for a policy of {num_drafts} drafts per request, got None")
