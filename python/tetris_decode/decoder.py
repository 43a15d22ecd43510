"""Batched speculative decoding: the loop around the stages of `tetris_kernels`."""

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
from tetris_decode.sampling import Sampling
from tetris_kernels import Accepted, PackedBatch, Selection, accept, pack


class Step(NamedTuple):
    """One step of a whole batch. A request that is running is verified once in each step.

    requests: running ones.
    drafted, verified, accepted: drafts, in all.
    coupled: drafts that were not verified and are emitted, by the coupled bonus of `tetris_kernels.accept`.
    emitted: tokens, in all. Those after an end do not count, so it may be less than accepted + requests.
    draft_seconds, select_seconds, seconds: wall time of drafting, of the policy, and of the whole step. The first
        two are the host's: on a GPU they may end before the work does.
    """

    requests: int
    drafted: int
    verified: int
    accepted: int
    coupled: int
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
    temperature: float | Sequence[float] = 0.0,
    top_p: float = 1.0,
    seeds: Sequence[int] | None = None,
    eos_token_id: int | Sequence[int] | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Generation:
    """Decode all prompts together; the output is the target model's, whatever is drafted and selected.

    Greedy output is that of plain decoding, sampled output has its distribution. In floating point, nearly: the
    shapes of a verification differ from those of plain decoding, and so may the last bits of logits, which decides
    between tokens of nearly equal logits. With float32 that is rare, with bfloat16 it happens.

    Args:
        model: the target, a causal model of transformers (see `PackedModel`), in evaluation mode.
        prompts: token ids of each request, at least one.
        max_new_tokens: how many tokens each request generates at most.
        drafter, policy: what is drafted, and what of it is verified. By default nothing is.
        temperature: 0 is greedy; one number, or one for each request.
        top_p: of the target: sample from the fewest tokens that have at least this probability together.
        seeds: of each request's random numbers; 0, 1, 2, ... by default. The same call gives the same output.
        eos_token_id: the token or tokens that end a request, usually `model.generation_config.eos_token_id`;
            they are part of its output. By default every request runs to `max_new_tokens`.
        on_step: called after each step, e.g. to show progress.

    Raises:
        TypeError: prompts that are not sequences, max_new_tokens that is no integer.
        ValueError: no prompt, an empty prompt, max_new_tokens below 1; a temperature, top_p or seeds that
            `Sampling` refuses; a policy that drafts without a drafter, a drafter of another vocabulary or of drafts
            of another shape than asked; a model that `PackedModel` refuses.
    """
    policy = policy or NO_SPECULATION
    _check_prompts(prompts, max_new_tokens)
    _check_drafter(drafter, policy, model)
    eos = [eos_token_id] if isinstance(eos_token_id, int) else eos_token_id or ()
    sampling = Sampling(len(prompts), temperature=temperature, top_p=top_p, seeds=seeds, device=model.device)
    batch = Batch(
        prompts, max_new_tokens, eos_token_ids=eos, num_drafts=policy.length, sampling=sampling, device=model.device
    )
    target = PackedModel(model, len(prompts), batch.tokens.shape[1])

    began = perf_counter()
    if drafter and policy.length:
        drafter.start(batch)
    logits = target.read(batch.tokens, torch.zeros_like(batch.lens), batch.lens)
    nothing = Drafts.none(batch.tokens)
    _emit(batch, nothing, Forward(logits, _pack(batch, nothing, NO_SPECULATION.select(nothing, 0))))
    prefill_seconds = perf_counter() - began

    steps = []
    while num_active := int((~batch.done).sum()):
        steps.append(_step(target, batch, drafter, policy, num_active))
        if on_step:
            on_step(steps[-1])
    return Generation(batch.outputs(), prefill_seconds, steps)


def _step(target: PackedModel, batch: Batch, drafter: Drafter | None, policy: Policy, num_active: int) -> Step:
    """Draft, select, pack, verify, accept."""
    began = perf_counter()
    drafts = _propose(batch, drafter, policy.num_drafts(num_active))
    drafted = perf_counter()
    selection = policy.select(drafts, num_active)
    selected = perf_counter()
    verification = target.forward(_pack(batch, drafts, selection))
    accepted, emitted = _emit(batch, drafts, verification)

    verified = verification.packed.lens
    totals = torch.stack([n.sum() for n in (drafts.lens, verified, accepted.counts, accepted.coupled, emitted)])
    num_drafted, num_verified, num_counted, num_coupled, num_emitted = totals.tolist()
    return Step(
        requests=num_active,
        drafted=num_drafted,
        verified=num_verified,
        accepted=num_counted - num_active,
        coupled=num_coupled,
        emitted=num_emitted,
        draft_seconds=drafted - began,
        select_seconds=selected - drafted,
        seconds=perf_counter() - began,
    )


def _pack(batch: Batch, drafts: Drafts, selection: Selection) -> PackedBatch:
    """The last token of each running request, which is not in the cache yet, and the selected drafts behind it."""
    return pack(
        selection,
        drafts.ids,
        batch.last_tokens,
        batch.context_lens,
        # Room for everything: the forward runs what is there, and no padding.
        capacity=drafts.ids.numel() + len(drafts.ids),
        draft_lens=drafts.lens,
    )


def _emit(batch: Batch, drafts: Drafts, verification: Forward) -> tuple[Accepted, Tensor]:
    """Accept drafts, and append what is emitted to the batch: [N] int64 tokens."""
    sampling, packed = batch.sampling, verification.packed
    accepted = accept(
        sampling.filtered(verification.logits, packed.request_ids),
        packed,
        drafts.ids,
        sampling.uniforms(drafts.ids.shape[1] + 1),
        draft_logits=drafts.logits,
        temperature=sampling.temperature,
    )
    return accepted, batch.append(accepted.tokens, accepted.counts)


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
