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
    draft_seconds, select_seconds, seconds: wall time of drafting, of the policy, and of the whole step. The first
        two are the host's: on a GPU they may end before the work does.
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
    """outputs: the tokens that each request generated.

    prefill_seconds: reading the prompts, by the drafter too, which yields the first token of each request.
    steps:           all that follows.
    """

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
    eos_token_id: int | Sequence[int] | None = None,
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
        eos_token_id: the token or tokens that end a request, usually `model.generation_config.eos_token_id`;
            they are part of its output. By default every request runs to `max_new_tokens`.
        on_step: called after each step, e.g. to show progress.

    Raises:
        TypeError: prompts that are not sequences, max_new_tokens that is no integer.
        ValueError: no prompt, an empty prompt, max_new_tokens below 1; a policy that drafts without a drafter, a
            drafter of another vocabulary or of drafts of another shape than asked; a model that `PackedModel`
            refuses.
    """
    policy = policy or NO_SPECULATION
    _check_prompts(prompts, max_new_tokens)
    _check_drafter(drafter, policy, model)
    eos = [eos_token_id] if isinstance(eos_token_id, int) else eos_token_id or ()
    batch = Batch(prompts, max_new_tokens, eos_token_ids=eos, num_drafts=policy.length, device=model.device)
    target = PackedModel(model, len(prompts), batch.tokens.shape[1])

    began = perf_counter()
    if drafter and policy.length:
        drafter.start(batch)
    logits = target.read(batch.tokens, torch.zeros_like(batch.lens), batch.lens)
    batch.append(most_probable(logits)[:, None], torch.ones_like(batch.lens))
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
    drafts = _propose(batch, drafter, policy.num_drafts(num_active))
    drafted = perf_counter()
    lens = torch.minimum(policy.select(drafts, num_active).lens, drafts.lens)
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


def _propose(batch: Batch, drafter: Drafter | None, num_drafts: int) -> Drafts:
    """Drafts as asked for, and none that a request has no use for."""
    if drafter is None or not num_drafts:
        return Drafts.none(batch.tokens)
    drafts = drafter.propose(batch, num_drafts)
    expected = (len(batch.lens), num_drafts)
    if not expected == drafts.ids.shape == drafts.logprobs.shape:
        got = f"{tuple(drafts.ids.shape)} and {tuple(drafts.logprobs.shape)}"
        raise ValueError(f"drafter: expected ids and logprobs {expected}, got {got}")
    return drafts._replace(lens=torch.minimum(drafts.lens, batch.max_drafts))


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
    choices = verification.ragged.padded(most_probable(verification.logits))
    num_drafts = choices.shape[1] - 1
    verified = torch.arange(num_drafts, device=lens.device) < lens[:, None]
    matches = (choices[:, :num_drafts] == draft_ids[:, :num_drafts]) & verified
    counts = matches.int().cumprod(1).sum(1) + 1
    return choices, counts.masked_fill(verification.ragged.counts == 0, 0)


def most_probable(logits: Tensor) -> Tensor:
    """[...] int64, the argmax of [..., V], the lowest of equals."""
    # Not argmax, which takes more than twice as long for bfloat16 on a CPU.
    return logits.max(-1).indices


def _check_prompts(prompts: Sequence[Sequence[int]], max_new_tokens: int) -> None:
    if not isinstance(max_new_tokens, int):
        raise TypeError(f"max_new_tokens: expected an integer, got {type(max_new_tokens).__name__}")
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens: expected 1 or more, got {max_new_tokens}")
    if len(prompts) == 0:
        raise ValueError("prompts: expected at least one, got none")
    for i, prompt in enumerate(prompts):
        if not isinstance(prompt, Sequence | Tensor):
            raise TypeError(f"prompts: expected a sequence of token ids for each, got {type(prompt).__name__}")
        if len(prompt) == 0:
            raise ValueError(f"prompts: expected at least one token each, got none in prompt {i}")


def _check_drafter(drafter: Drafter | None, policy: Policy, model: PreTrainedModel) -> None:
    if drafter is None:
        if policy.length:
            raise ValueError(f"drafter: expected one for a policy of {policy.length} drafts per request, got None")
    elif drafter.vocab_size != model.config.vocab_size:
        expected, got = model.config.vocab_size, drafter.vocab_size
        raise ValueError(f"drafter: expected the target's vocabulary of {expected} tokens, got {got}")
