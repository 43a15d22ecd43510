"""The stages as torch operators: what torch.compile, torch.export and fake tensors see.

Each operator has one schema, one implementation for every device, which is what eager calls run
directly, and one fake.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tetris_kernels.backend import implementation

_LIBRARY = torch.library.Library("tetris_kernels", "DEF")


def select(
    draft_logprobs: Tensor,
    budget: Tensor | None,
    host_budget: int,
    draft_lens: Tensor | None,
    min_lens: Tensor | None,
    max_lens: Tensor | None,
    log_weights: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """(lens, cu_lens) of checked arguments, by the backend that is named or fits."""
    run = implementation("selection", backend, draft_logprobs.device, *draft_logprobs.shape).select
    outputs: tuple[Tensor, Tensor] = run(
        draft_logprobs, budget, host_budget, draft_lens, min_lens, max_lens, log_weights
    )
    return outputs


def _fake_select(draft_logprobs: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    num_requests = draft_logprobs.shape[0]
    lens = draft_logprobs.new_empty(num_requests, dtype=torch.int32)
    return lens, draft_logprobs.new_empty(num_requests + 1, dtype=torch.int32)


def expected_accepts(
    draft_logprobs: Tensor,
    budgets: Tensor,
    draft_lens: Tensor | None,
    min_lens: Tensor | None,
    max_lens: Tensor | None,
    log_weights: Tensor | None,
    backend: str,
) -> Tensor:
    """[B] float32 of checked arguments, by the backend that is named or fits."""
    run = implementation("expectation", backend, draft_logprobs.device, *draft_logprobs.shape).expected_accepts
    expected: Tensor = run(draft_logprobs, budgets, draft_lens, min_lens, max_lens, log_weights)
    return expected


def _fake_expected_accepts(draft_logprobs: Tensor, budgets: Tensor, *_: object) -> Tensor:
    return draft_logprobs.new_empty(budgets.shape, dtype=torch.float32)


def choose_budget(
    draft_logprobs: Tensor,
    tokens: Tensor,
    seconds: Tensor,
    requests: Tensor | None,
    host_requests: int,
    argmax: bool,
    factor: float,
    draft_lens: Tensor | None,
    min_lens: Tensor | None,
    max_lens: Tensor | None,
    log_weights: Tensor | None,
    backend: str,
) -> Tensor:
    """0-d int32 of checked arguments, by the backend that is named or fits."""
    run = implementation("budgeting", backend, draft_logprobs.device, *draft_logprobs.shape).choose_budget
    ends = (tokens, seconds, requests, host_requests)
    budget: Tensor = run(draft_logprobs, *ends, argmax, factor, draft_lens, min_lens, max_lens, log_weights)
    return budget


def _fake_choose_budget(draft_logprobs: Tensor, *_: object) -> Tensor:
    return draft_logprobs.new_empty((), dtype=torch.int32)


def score(
    draft_logits: Tensor,
    draft_ids: Tensor,
    kind: str,
    temperature: Tensor | None,
    host_temperature: float,
    draft_lens: Tensor | None,
    backend: str,
) -> Tensor:
    """[N, K] float32 of checked arguments, by the backend that is named or fits."""
    run = implementation("scoring", backend, draft_logits.device, draft_logits.shape[2]).score
    scores: Tensor = run(draft_logits, draft_ids, kind, temperature, host_temperature, draft_lens)
    return scores


def _fake_score(draft_logits: Tensor, *_: object) -> Tensor:
    return draft_logits.new_empty(draft_logits.shape[:2], dtype=torch.float32)


def select_from_logits(
    draft_logits: Tensor,
    draft_ids: Tensor,
    kind: str,
    temperature: Tensor | None,
    host_temperature: float,
    budget: Tensor | None,
    host_budget: int,
    draft_lens: Tensor | None,
    min_lens: Tensor | None,
    max_lens: Tensor | None,
    log_weights: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """(lens, cu_lens, scores) of checked arguments: score and select, in one where the backend can."""
    scoring = implementation("scoring", backend, draft_logits.device, draft_logits.shape[2])
    preferences = (draft_lens, min_lens, max_lens, log_weights)
    if scoring.fuses(*draft_logits.shape):
        outputs: tuple[Tensor, Tensor, Tensor] = scoring.select_from_logits(
            draft_logits, draft_ids, kind, temperature, host_temperature, budget, host_budget, *preferences
        )
        return outputs
    scores = score(draft_logits, draft_ids, kind, temperature, host_temperature, draft_lens, backend)
    return *select(scores, budget, host_budget, *preferences, backend), scores


def _fake_select_from_logits(draft_logits: Tensor, *_: object) -> tuple[Tensor, Tensor, Tensor]:
    return *_fake_select(draft_logits), _fake_score(draft_logits)


def pack(
    lens: Tensor,
    draft_ids: Tensor,
    anchor_ids: Tensor,
    context_lens: Tensor,
    capacity: int,
    draft_lens: Tensor | None,
    pad_id: int,
    backend: str,
) -> tuple[Tensor, ...]:
    """The tensors of a PackedBatch, of checked arguments, by the backend that is named or fits."""
    run = implementation("packing", backend, draft_ids.device).pack
    outputs: tuple[Tensor, ...] = run(lens, draft_ids, anchor_ids, context_lens, capacity, draft_lens, pad_id)
    return outputs


def _fake_pack(
    lens: Tensor, draft_ids: Tensor, anchor_ids: Tensor, context_lens: Tensor, capacity: int, *_: object
) -> tuple[Tensor, ...]:
    slots = lens.new_empty(capacity, dtype=torch.int64)
    requests = lens.new_empty(lens.shape[0], dtype=torch.int32)
    return (
        slots,
        torch.empty_like(slots),
        lens.new_empty(capacity, dtype=torch.int32),
        lens.new_empty(lens.shape[0] + 1, dtype=torch.int32),
        requests,
        torch.empty_like(requests),
        lens.new_empty((), dtype=torch.bool),
    )


def accept(
    target_logits: Tensor,
    request_ids: Tensor,
    cu_seqlens: Tensor,
    lens: Tensor,
    draft_lens: Tensor,
    draft_ids: Tensor,
    uniforms: Tensor,
    draft_logits: Tensor | None,
    temperature: Tensor | None,
    host_temperature: float,
    coupled: bool,
    backend: str,
) -> tuple[Tensor, Tensor, Tensor]:
    """The tensors of an Accepted, of checked arguments, by the backend that is named or fits."""
    run = implementation("acceptance", backend, target_logits.device, target_logits.shape[1]).accept
    outputs: tuple[Tensor, Tensor, Tensor] = run(
        target_logits,
        request_ids,
        cu_seqlens,
        lens,
        draft_lens,
        draft_ids,
        uniforms,
        draft_logits,
        temperature,
        host_temperature,
        coupled,
    )
    return outputs


def _fake_accept(
    target_logits: Tensor,
    request_ids: Tensor,
    cu_seqlens: Tensor,
    lens: Tensor,
    draft_lens: Tensor,
    draft_ids: Tensor,
    uniforms: Tensor,
    *_: object,
) -> tuple[Tensor, Tensor, Tensor]:
    tokens = target_logits.new_empty(uniforms.shape, dtype=torch.int64)
    counts = target_logits.new_empty(lens.shape[0], dtype=torch.int32)
    return tokens, counts, torch.empty_like(counts, dtype=torch.bool)


def _register(schema: str, run: Callable[..., Any], fake: Callable[..., Any]) -> None:
    _LIBRARY.define(schema, tags=(torch.Tag.pt2_compliant_tag,))
    name = schema.partition("(")[0]
    _LIBRARY.impl(name, run, "CompositeExplicitAutograd")
    # What a stage returns has no gradient, scores too: they choose, they are not trained through.
    _LIBRARY.impl(name, torch.library.fallthrough_kernel, "Autograd")
    torch.library.register_fake(f"tetris_kernels::{name}", fake, lib=_LIBRARY)


_BUDGET = "Tensor? budget, SymInt host_budget"
_PREFERENCES = "Tensor? draft_lens, Tensor? min_lens, Tensor? max_lens, Tensor? log_weights"
_LOGITS = "Tensor draft_logits, Tensor draft_ids, str kind, Tensor? temperature, float host_temperature"

_register(
    f"select(Tensor draft_logprobs, {_BUDGET}, {_PREFERENCES}, str backend) -> (Tensor, Tensor)", select, _fake_select
)
_register(
    f"expected_accepts(Tensor draft_logprobs, Tensor budgets, {_PREFERENCES}, str backend) -> Tensor",
    expected_accepts,
    _fake_expected_accepts,
)
_register(
    "choose_budget(Tensor draft_logprobs, Tensor tokens, Tensor seconds, Tensor? requests, SymInt host_requests, "
    f"bool argmax, float factor, {_PREFERENCES}, str backend) -> Tensor",
    choose_budget,
    _fake_choose_budget,
)
_register(f"score({_LOGITS}, Tensor? draft_lens, str backend) -> Tensor", score, _fake_score)
_register(
    f"select_from_logits({_LOGITS}, {_BUDGET}, {_PREFERENCES}, str backend) -> (Tensor, Tensor, Tensor)",
    select_from_logits,
    _fake_select_from_logits,
)
_register(
    "pack(Tensor lens, Tensor draft_ids, Tensor anchor_ids, Tensor context_lens, SymInt capacity, Tensor? draft_lens, "
    "int pad_id, str backend) -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    pack,
    _fake_pack,
)
_register(
    "accept(Tensor target_logits, Tensor request_ids, Tensor cu_seqlens, Tensor lens, Tensor draft_lens, "
    "Tensor draft_ids, Tensor uniforms, Tensor? draft_logits, Tensor? temperature, float host_temperature, "
    "bool coupled, str backend) -> (Tensor, Tensor, Tensor)",
    accept,
    _fake_accept,
)


def is_traced(*tensors: Tensor | None) -> bool:
    """Whether a call must go through the operator: under tracing, dispatch modes and torch.func, or for subclasses."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or not _PLAIN.issuperset(map(type, tensors))
    )


_PLAIN = frozenset({Tensor, torch.nn.Parameter, type(None)})
