"""Record what a drafter proposes at every position of real texts, and what the target says to it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedModel

from tetris_decode.batch import Batch
from tetris_decode.decoder import Decoder, check_prompts, pack_drafts, propose
from tetris_decode.drafting import Drafter, Drafts
from tetris_decode.metrics import Step
from tetris_decode.packed import Forward
from tetris_decode.policies import FixedLength
from tetris_decode.sampling import Sampling
from tetris_decode.traces import NUM_DRAFTS, Run
from tetris_kernels import Accepted, accept


def record(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int | Sequence[int],
    drafter: Drafter,
    *,
    on_step: Callable[[Step], None] | None = None,
    **options: Any,
) -> Run:
    """Decode all prompts, and record K drafts at every position; see `Recorder` for the options."""
    recorder = Recorder(model, prompts, max_new_tokens, drafter, **options)
    while recorder.is_running:
        step = recorder.step()
        if on_step:
            on_step(step)
    return recorder.run()


class _Row(NamedTuple):
    """One row of a `Run`, each [K]; `tested` as the tests fell that time."""

    ids: NDArray[np.int64]
    log_q: NDArray[np.float32]
    acceptance: NDArray[np.float32]
    tested: NDArray[np.bool_]


class Recorder(Decoder):
    """A decoder that verifies K drafts of each request in each step and takes one token: the first that is emitted.

    So the drafts of the next step follow the next position. The output is the target's, as that of any decoder.

    Args:
        model, prompts, max_new_tokens, drafter, top_p, seeds, eos_token_id: as for `decoder.generate`.
        name: of the run, by default the drafter's class@temperature.
        prompt_names: one for each prompt, by default their numbers.
        about: what else the run should say about itself.
        num_drafts: K.
        batch_size: requests at a time; when one ends, the next takes its place.
        temperature: of all requests.

    Raises:
        TypeError, ValueError: as `decoder.generate`; a num_drafts below 1, another number of names than of prompts.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int | Sequence[int],
        drafter: Drafter,
        *,
        name: str | None = None,
        prompt_names: Sequence[str] | None = None,
        about: Mapping[str, str] | None = None,
        num_drafts: int = NUM_DRAFTS,
        batch_size: int | None = None,
        temperature: float = 0.0,
        top_p: float = 1.0,
        seeds: Sequence[int] | None = None,
        eos_token_id: int | Sequence[int] | None = None,
    ) -> None:
        check_prompts(prompts, max_new_tokens, batch_size)
        if num_drafts < 1:
            raise ValueError(f"num_drafts: expected 1 or more, got {num_drafts}")
        self._prompt_names = tuple(map(str, range(len(prompts))) if prompt_names is None else prompt_names)
        if len(self._prompt_names) != len(prompts):
            got = len(self._prompt_names)
            raise ValueError(f"prompt_names: expected one for each of {len(prompts)} prompts, got {got}")
        self.name = name or f"{type(drafter).__name__}@T{temperature:g}"
        self._about = {**(about or {}), "temperature": f"{temperature:g}", "top_p": f"{top_p:g}"}
        self._limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
        self._drawn = False
        self._rows: dict[int, list[_Row]] = {}
        batch = Batch(
            prompts,
            max_new_tokens,
            num_rows=batch_size,
            eos_token_ids=[eos_token_id] if isinstance(eos_token_id, int) else eos_token_id or (),
            num_drafts=num_drafts,
            sampling=Sampling(len(prompts), temperature=temperature, top_p=top_p, seeds=seeds, device=model.device),
            device=model.device,
        )
        super().__init__(model, batch, drafter, FixedLength(num_drafts))

    @torch.inference_mode()
    def step(self) -> Step:
        """Draft, verify all, record, and take one token of each request."""
        batch, num_active = self.batch, self._num_active
        began = perf_counter()
        drafts = propose(batch, self.drafter, self.policy.length)
        draft_seconds = perf_counter() - began
        verification = self.target.forward(pack_drafts(batch, drafts, self.policy.select(drafts, num_active)))
        acceptance, tested, accepted = _test(batch.sampling, drafts, verification)
        self._drawn = drafts.logits is not None
        rows = zip(*(c.cpu().numpy() for c in (drafts.ids, drafts.logprobs, acceptance, tested)), strict=True)
        running = (~batch.done).tolist()
        for request, is_running, row in zip(batch.requests, running, rows, strict=True):
            if is_running:
                self._rows.setdefault(request, []).append(_Row(*row))
        emitted = batch.append(accepted.tokens[:, :1], accepted.counts.clamp(max=1))

        num_verified, num_counted = int(drafts.lens.sum()), int(accepted.counts.sum())
        step = Step(
            requests=num_active,
            drafted=num_verified,
            verified=num_verified,
            accepted=num_counted - num_active,
            rejected=int(((accepted.counts > 0) & (accepted.counts <= drafts.lens)).sum()),
            coupled=0,
            emitted=int(emitted.sum()),
            draft_seconds=draft_seconds,
            select_seconds=0.0,
            seconds=perf_counter() - began,
        )
        self.steps.append(step)
        self.timeline.advance(step.seconds, zip(batch.requests, emitted.tolist(), strict=True))
        self._num_active = len(batch.requests) - int(batch.done.sum())
        self._refill()
        return step

    def run(self) -> Run:
        """What was recorded so far. The text of a request that has not ended yet is taken to end there.

        Raises:
            ValueError: nothing was.
        """
        cut = {r for r, done in zip(self.batch.requests, self.batch.done.tolist(), strict=True) if not done}
        texts = {}
        for request, text in enumerate(self.batch.outputs()):
            # Whatever was interrupted: a text has one token more than rows.
            text = text[: len(self._rows.get(request, ())) + 1]
            if text:
                texts[request] = np.array(text)
        limits = {r: len(text) if r in cut else self._limits[r] for r, text in texts.items()}
        if not texts:
            raise ValueError("recording: expected a request that has begun, got none")
        rows = [self._columns(text, self._rows.get(request, []), limits[request]) for request, text in texts.items()]
        ids, log_q, acceptance, accepted = (np.concatenate(column) for column in zip(*rows, strict=True))
        integer = np.uint16 if self.target.model.config.vocab_size <= 1 << 16 else np.uint32
        return Run(
            name=self.name,
            about=self._about,
            drawn=self._drawn,
            prompts=tuple(self._prompt_names[request] for request in texts),
            limits=np.array(list(limits.values()), np.int64),
            num_tokens=np.array([len(text) for text in texts.values()], np.int64),
            tokens=np.concatenate(list(texts.values())).astype(integer),
            ids=ids.astype(integer),
            log_q=log_q.astype(np.float32),
            acceptance=acceptance.astype(np.float16),
            accepted=accepted.astype(np.bool_),
        )

    def _columns(self, text: NDArray[np.int64], rows: list[_Row], limit: int) -> tuple[NDArray[Any], ...]:
        """ids, log_q, acceptance and outcomes of a request's rows, [M, K] each, 0 behind the drafts that it had."""
        num_rows, num_drafts = len(text) - 1, self.policy.length
        if num_rows == 0:
            return tuple(np.zeros((0, num_drafts)) for _ in _Row._fields)
        ids, log_q, acceptance, accepted = (np.stack(column) for column in zip(*rows[:num_rows], strict=True))
        position = np.arange(num_drafts)
        follows = np.arange(num_rows)[:, None] + 1 + position
        if not self._drawn:
            # As long as the text goes on along the drafts, it says itself what is accepted.
            is_text = ids == text[np.minimum(follows, num_rows)]
            led = np.logical_and.accumulate(np.pad(is_text[:, :-1], ((0, 0), (1, 0)), constant_values=True), axis=1)
            accepted = np.where(led & (follows <= num_rows), is_text, accepted)
            if self.batch.sampling.is_greedy:
                acceptance = accepted.astype(np.float32)
        there = position < np.clip(limit - follows[:, :1] - 1, 0, num_drafts)
        return tuple(np.where(there, column, 0) for column in (ids, log_q, acceptance, accepted))


def _test(sampling: Sampling, drafts: Drafts, verification: Forward) -> tuple[Tensor, Tensor, Accepted]:
    """min(1, p / q) of each draft and the outcome of its test, [N, K] each, and what `accept` makes of it."""
    packed = verification.packed
    logits = sampling.filtered(verification.logits, packed.request_ids)
    uniforms = sampling.uniforms(drafts.ids.shape[1] + 1)
    accepted = accept(
        logits, packed, drafts.ids, uniforms, draft_logits=drafts.logits, temperature=sampling.temperature
    )
    position = torch.arange(drafts.ids.shape[1], device=logits.device)
    slots = (packed.cu_seqlens[:-1, None] + position).clamp(max=len(logits) - 1)
    if sampling.is_greedy:
        acceptance = (logits.max(-1).indices[slots] == drafts.ids).float()
    else:
        acceptance = sampling.scaled(logits, packed.request_ids).float().softmax(-1)[slots, drafts.ids]
        if drafts.logits is not None:
            q = drafts.logits.float().softmax(-1).gather(2, drafts.ids[:, :, None])[:, :, 0]
            acceptance = (acceptance / q).clamp(max=1)
    num_accepted = (accepted.counts - 1)[:, None]
    # Up to the first rejection what `accept` says; behind it by the uniforms, which nothing else used.
    tested = (position < num_accepted) | ((position > num_accepted) & (uniforms[:, :-1] < acceptance))
    return acceptance, tested, accepted
