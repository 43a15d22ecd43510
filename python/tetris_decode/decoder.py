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
from tetris_decode.metrics import RequestTimes, Step, Timeline
from tetris_decode.packed import Forward, PackedModel
from tetris_decode.policies import NO_SPECULATION, Outcome, Policy
from tetris_decode.sampling import Sampling
from tetris_kernels import Accepted, PackedBatch, Selection, accept, pack


class Generation(NamedTuple):
    """outputs: the tokens that each request generated.

    prefill_seconds: reading the prompts, which yields the first token of each request. The drafter's reading of the
                     first ones is in it; those of requests that join later it reads when it drafts for them.
    steps:           all else.
    requests:        when each request had its tokens, by a clock of prefill and steps.
    """

    outputs: list[list[int]]
    prefill_seconds: float
    steps: list[Step]
    requests: list[RequestTimes]


def generate(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int],
    *,
    batch_size: int | None = None,
    drafter: Drafter | None = None,
    policy: Policy | None = None,
    temperature: float | Sequence[float] = 0.0,
    top_p: float = 1.0,
    seeds: Sequence[int] | None = None,
    eos_token_id: int | Sequence[int] | None = None,
    on_step: Callable[[Step], None] | None = None,
) -> Generation:
    """Decode all prompts; the output is the target model's, whatever is drafted and selected.

    Greedy output is that of plain decoding, sampled output has its distribution. In floating point, nearly: the
    shapes of a verification differ from those of plain decoding, and so may the last bits of logits, which decides
    between tokens of nearly equal logits. With float32 that is rare, with bfloat16 it happens.

    Args:
        model: the target, a causal model of transformers (see `PackedModel`), in evaluation mode.
        prompts: token ids of each request, at least one.
        max_new_tokens: how many tokens each request generates at most; one number, or one for each.
        batch_size: how many requests run at a time; when one ends, the next takes its place. By default all do.
        drafter, policy: what is drafted, and what of it is verified. By default nothing is.
        temperature: 0 is greedy; one number, or one for each request.
        top_p: of the target: sample from the fewest tokens that have at least this probability together.
        seeds: of each request's random numbers; 0, 1, 2, ... by default. The same call gives the same output.
        eos_token_id: the token or tokens that end a request, usually `model.generation_config.eos_token_id`;
            they are part of its output. By default every request runs to `max_new_tokens`.
        on_step: called after each step, e.g. to show progress.

    Raises:
        TypeError: prompts that are not sequences, max_new_tokens or batch_size that are no integers.
        ValueError: no prompt, an empty prompt, max_new_tokens or batch_size below 1, another number of max_new_tokens
            than of prompts; a temperature, top_p or seeds that `Sampling` refuses; a policy that drafts without a
            drafter, a drafter of another vocabulary or of drafts of another shape than asked; a model that
            `PackedModel` refuses.
    """
    policy = policy or NO_SPECULATION
    check_prompts(prompts, max_new_tokens, batch_size)
    _check_drafter(drafter, policy, model)
    batch = Batch(
        prompts,
        max_new_tokens,
        num_rows=batch_size,
        eos_token_ids=[eos_token_id] if isinstance(eos_token_id, int) else eos_token_id or (),
        num_drafts=policy.length,
        sampling=Sampling(len(prompts), temperature=temperature, top_p=top_p, seeds=seeds, device=model.device),
        device=model.device,
    )
    decoder = Decoder(model, batch, drafter, policy)
    while decoder.is_running:
        step = decoder.step()
        if on_step:
            on_step(step)
    return decoder.generation()


class Decoder:
    """`generate`, a step at a time. When it is made it reads prompts until every row runs, or nobody waits.

    steps, timeline, prefill_seconds: as in `Generation`, so far.
    """

    def __init__(self, model: PreTrainedModel, batch: Batch, drafter: Drafter | None, policy: Policy) -> None:
        self.batch, self.drafter, self.policy = batch, drafter, policy
        self.target = PackedModel(model, *batch.tokens.shape)
        self.steps: list[Step] = []
        self.timeline = Timeline()
        self.prefill_seconds = 0.0
        self._num_active = 0
        self._admit(range(len(batch.requests)), starts_drafter=policy.length > 0)
        self._refill()

    @property
    def is_running(self) -> bool:
        """Whether a request has not ended yet."""
        return self._num_active > 0

    def generation(self) -> Generation:
        """What was generated so far, by the requests that have had a place in the batch."""
        times = [self.timeline.requests[request] for request in range(len(self.timeline.requests))]
        return Generation(self.batch.outputs(), self.prefill_seconds, self.steps, times)

    @torch.inference_mode()
    def step(self) -> Step:
        """Draft, select, pack, verify, accept; then the next requests take the places of those that ended."""
        batch, policy, num_active = self.batch, self.policy, self._num_active
        began = perf_counter()
        drafts = propose(batch, self.drafter, policy.num_drafts(num_active))
        drafted_at = perf_counter()
        selection = policy.select(drafts, num_active)
        selected_at = perf_counter()
        verification = self.target.forward(pack_drafts(batch, drafts, selection))
        accepted, emitted = emit(batch, drafts, verification)

        lens = verification.packed.lens
        # Where the last token has the place of a verified draft, that draft was rejected.
        replaced = (accepted.counts > 0) & (accepted.counts <= lens)
        columns = drafts.lens, lens, accepted.counts, replaced, accepted.coupled, emitted, batch.done
        # The one answer that the host waits for, of all rows at once.
        drafted, verified, counts, rejected, coupled, took, done = torch.stack([c.long() for c in columns]).tolist()
        step = Step(
            requests=num_active,
            drafted=sum(drafted),
            verified=sum(verified),
            accepted=sum(counts) - num_active,
            rejected=sum(rejected),
            coupled=sum(coupled),
            emitted=sum(took),
            draft_seconds=drafted_at - began,
            select_seconds=selected_at - drafted_at,
            seconds=perf_counter() - began,
        )
        policy.observe(step, Outcome(drafts, lens, accepted.counts, accepted.coupled))
        # What a policy learns is its time too.
        seconds = perf_counter() - began
        step = step._replace(select_seconds=step.select_seconds + seconds - step.seconds, seconds=seconds)
        self.steps.append(step)
        self.timeline.advance(step.seconds, zip(batch.requests, took, strict=True))
        self._num_active = done.count(0)
        self._refill()
        return step

    def _refill(self) -> None:
        """Read the prompts of those that wait until the batch is full; some may end with their first token."""
        while self.batch.num_waiting and self._num_active < len(self.batch.requests):
            self._admit(self.batch.refill())

    @torch.inference_mode()
    def _admit(self, rows: Sequence[int], *, starts_drafter: bool = False) -> None:
        """Read the prompts of these rows' requests, which yields the first token of each."""
        batch = self.batch
        began = perf_counter()
        if starts_drafter and self.drafter:
            self.drafter.start(batch)
        admitted = torch.zeros_like(batch.done).index_fill(0, torch.tensor(list(rows), device=batch.done.device), True)
        ends = batch.lens.where(admitted, 0)
        logits = self.target.read(batch.tokens, torch.zeros_like(ends), ends)
        nothing = Drafts.none(batch.tokens)
        packed = pack_drafts(batch, nothing, NO_SPECULATION.select(nothing, 0), only=admitted)
        emit(batch, nothing, Forward(logits.index_select(0, packed.request_ids.clamp(min=0)), packed), rows)
        self._num_active = len(batch.requests) - int(batch.done.sum())
        seconds = perf_counter() - began
        self.prefill_seconds += seconds
        self.timeline.admit([batch.requests[row] for row in rows], seconds)


def pack_drafts(batch: Batch, drafts: Drafts, selection: Selection, only: Tensor | None = None) -> PackedBatch:
    """The last token of each running request, which is not in the cache yet, and the selected drafts behind it.

    Given `only` [N] bool, the others sit out.
    """
    return pack(
        selection,
        drafts.ids,
        batch.last_tokens,
        batch.context_lens if only is None else batch.context_lens.masked_fill(~only, -1),
        # Room for everything: the forward runs what is there, and no padding.
        capacity=drafts.ids.numel() + len(drafts.ids),
        draft_lens=drafts.lens,
    )


def emit(
    batch: Batch, drafts: Drafts, verification: Forward, rows: Sequence[int] | None = None
) -> tuple[Accepted, Tensor]:
    """Accept drafts, and append what is emitted to the batch: [N] int64 tokens. `rows` are verified, or all."""
    sampling, packed = batch.sampling, verification.packed
    accepted = accept(
        sampling.filtered(verification.logits, packed.request_ids),
        packed,
        drafts.ids,
        sampling.uniforms(drafts.ids.shape[1] + 1, rows),
        draft_logits=drafts.logits,
        temperature=sampling.temperature,
    )
    return accepted, batch.append(accepted.tokens, accepted.counts)


def propose(batch: Batch, drafter: Drafter | None, num_drafts: int) -> Drafts:
    """Drafts as asked for, and none that a request has no use for."""
    if drafter is None or not num_drafts:
        return Drafts.none(batch.tokens)
    drafts = drafter.propose(batch, num_drafts)
    expected = (len(batch.lens), num_drafts)
    if not expected == drafts.ids.shape == drafts.logprobs.shape:
        got = f"{tuple(drafts.ids.shape)} and {tuple(drafts.logprobs.shape)}"
        raise ValueError(f"drafter: expected ids and logprobs {expected}, got {got}")
    return drafts._replace(lens=torch.minimum(drafts.lens, batch.max_drafts))


def check_prompts(
    prompts: Sequence[Sequence[int]], max_new_tokens: int | Sequence[int], batch_size: int | None
) -> None:
    limits = [max_new_tokens] if isinstance(max_new_tokens, int) else max_new_tokens
    if not isinstance(limits, Sequence):
        raise TypeError(f"max_new_tokens: expected an integer, got {type(limits).__name__}")
    for name, values in (("max_new_tokens", limits), ("batch_size", [1 if batch_size is None else batch_size])):
        for value in values:
            if not isinstance(value, int):
                raise TypeError(f"{name}: expected an integer, got {type(value).__name__}")
            if value < 1:
                raise ValueError(f"{name}: expected 1 or more, got {value}")
    if len(prompts) == 0:
        raise ValueError("prompts: expected at least one, got none")
    if limits is max_new_tokens and len(limits) != len(prompts):
        raise ValueError(f"max_new_tokens: expected one number, or {len(prompts)}, got {len(limits)}")
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
