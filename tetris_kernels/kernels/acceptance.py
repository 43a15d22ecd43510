"""accept in three launches, or five with draft logits: variants and the launches."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from tetris_kernels.kernels import drawing
from tetris_kernels.kernels.accept_kernels import draft_kernel, target_kernel
from tetris_kernels.kernels.deciding import decide_kernel
from tetris_kernels.kernels.drawing import draw_kernel, residual_kernel
from tetris_kernels.kernels.launching import as_float32, as_words, check_vocabulary, is_wide, launch, on_device
from tetris_kernels.kernels.variant import Variant
from tetris_kernels.kernels.vocabulary import CHUNK, MAX_VOCABULARY

_TYPES = {torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16"}
_POSITIONS = {32: 1, 512: 8}  # padded K + 1 of the decide kernel, and its warps


def fits(vocabulary: int) -> bool:
    """Whether there are kernels for a vocabulary of this size."""
    return vocabulary <= MAX_VOCABULARY


def variants() -> Iterator[Variant]:
    """Every compilation of the kernels that a call can ask for."""
    for dtype in _TYPES:
        yield _states_variant("target", dtype)
        yield _states_variant("draft", dtype)
    for has_draft, positions in itertools.product((False, True), _POSITIONS):
        yield _decide_variant(has_draft, positions)
    for target in ("single", "half"):
        yield _draw_variant(target, None)
        for draft in ("single", "half"):
            yield _residual_variant(target, draft)
            yield _draw_variant(target, draft)


@functools.cache
def _needed(target: torch.dtype, draft: torch.dtype | None, num_drafts: int) -> dict[str, Variant]:
    """The variants of a call, by what they do, in the order of their launches."""
    positions = next(size for size in _POSITIONS if num_drafts < size)
    needed = {"target": _states_variant("target", target)}
    if draft is not None:
        needed["draft"] = _states_variant("draft", draft)
    needed["decide"] = _decide_variant(draft is not None, positions)
    if draft is not None:
        needed["residual"] = _residual_variant(_width(target), _width(draft))
    needed["draw"] = _draw_variant(_width(target), None if draft is None else _width(draft))
    return needed


def _width(dtype: torch.dtype) -> str:
    return "single" if dtype == torch.float32 else "half"


_ROWS = {"stride_row": "i64", "stride_v": "i64"}
_DRAFT_ROWS = {"stride_n": "i64", "stride_k": "i64"}
_LAYOUT = {"cu_seqlens_ptr": "*i32", "lens_ptr": "*i32", "draft_lens_ptr": "*i32", "ids_ptr": "*i32"}
_SIZES = {"num_requests": "i32", "num_drafts": "i32", "vocabulary": "i32", "capacity": "i32", "form": "i32"}
_BITS = {"single": "*fp32", "half": "*i16"}


@functools.cache
def _states_variant(rows: str, dtype: torch.dtype) -> Variant:
    temperatures = {"temperatures_ptr": "*fp32"}
    if rows == "target":
        strides = _ROWS | {"request_ids_ptr": "*i32"}
        temperatures |= {"host_temperature": "fp32"}
    else:
        strides = _DRAFT_ROWS | {"stride_v": "i64"}
    signature = {"logits_ptr": _TYPES[dtype]} | strides | _LAYOUT | temperatures | {"states_ptr": "*fp32"} | _SIZES
    name = str(dtype).removeprefix("torch.")
    return Variant(
        name=f"accept-{rows}-{name}",
        kernel=target_kernel if rows == "target" else draft_kernel,
        signature=signature,
        constexprs={},
        num_warps=8,
        when=f"{rows} logits of {name}",
    )


@functools.cache
def _decide_variant(has_draft: bool, positions: int) -> Variant:
    signature = (
        {"states_ptr": "*fp32", "draft_states_ptr": "*fp32" if has_draft else "constexpr"}
        | _LAYOUT
        | {"uniforms_ptr": "*fp32", "temperatures_ptr": "*fp32", "host_temperature": "fp32"}
        | {"tokens_ptr": "*i64", "counts_ptr": "*i32", "coupled_ptr": "*i8", "plan_ptr": "*i32"}
        | _SIZES
    )
    drafts = "full" if has_draft else "onehot"
    return Variant(
        name=f"accept-decide-{drafts}-{positions}",
        kernel=decide_kernel,
        signature=signature,
        constexprs=({} if has_draft else {"draft_states_ptr": None}) | {"POSITIONS": positions},
        num_warps=_POSITIONS[positions],
        when=f"{'draft logits' if has_draft else 'no draft logits'}; up to {positions - 1} drafts",
    )


@functools.cache
def _residual_variant(target: str, draft: str) -> Variant:
    signature = (
        {"target_ptr": _BITS[target], **_ROWS, "draft_ptr": _BITS[draft], **_DRAFT_ROWS, "stride_qv": "i64"}
        | {"plan_ptr": "*i32", "masses_ptr": "*fp32"}
        | {"num_requests": "i32", "vocabulary": "i32", "form": "i32"}
    )
    return Variant(
        name=f"accept-residual-{target}-{draft}",
        kernel=residual_kernel,
        signature=signature,
        constexprs={},
        num_warps=8,
        when=f"{target} precision target logits, {draft} precision draft logits",
    )


@functools.cache
def _draw_variant(target: str, draft: str | None) -> Variant:
    signature = (
        {"target_ptr": _BITS[target], **_ROWS, "draft_ptr": "constexpr" if draft is None else _BITS[draft]}
        | _DRAFT_ROWS
        | {"stride_qv": "i64", "plan_ptr": "*i32", "masses_ptr": "*fp32", "num_columns": "i32"}
        | {"tokens_ptr": "*i64", "num_tokens": "i32", "vocabulary": "i32", "form": "i32"}
    )
    return Variant(
        name=f"accept-draw-{target}-{draft or 'onehot'}",
        kernel=draw_kernel,
        signature=signature,
        constexprs={"draft_ptr": None} if draft is None else {},
        num_warps=16,
        when=f"{target} precision target logits, {draft + ' precision' if draft else 'no'} draft logits",
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
) -> tuple[Tensor, Tensor, Tensor]:
    """`tetris_kernels.accept` on checked arguments, returning the fields of an Accepted.

    Two launches for a greedy host temperature, three without draft logits, else five. Of all tensors but the logits,
    those that are not contiguous cost a copy.
    """
    capacity, vocabulary = target_logits.shape
    num_requests, num_drafts = draft_ids.shape
    check_vocabulary(vocabulary)
    host_temperature = as_float32(host_temperature)
    is_greedy = temperature is None and host_temperature == 0
    # A greedy target does not ask how the drafts were drawn.
    draft = None if is_greedy else draft_logits
    needed = _needed(target_logits.dtype, None if draft is None else draft.dtype, num_drafts)
    num_chunks = -(-vocabulary // CHUNK.value)

    tokens = target_logits.new_empty(num_requests, num_drafts + 1, dtype=torch.int64)
    counts = target_logits.new_empty(num_requests, dtype=torch.int32)
    is_coupled = target_logits.new_empty(num_requests, dtype=torch.bool)
    plan = target_logits.new_empty(num_requests, drawing.PLAN.value, dtype=torch.int32)
    states = target_logits.new_empty(2 * num_chunks + 1, capacity, dtype=torch.float32)

    form = _form(target_logits, draft, draft_ids, temperature, coupled)
    layout = (cu_seqlens.contiguous(), lens.contiguous(), draft_lens.contiguous(), as_words(draft_ids))
    temperatures = states if temperature is None else temperature.contiguous()
    sizes = (num_requests, num_drafts, vocabulary, capacity, form)
    target_rows = (_bits(target_logits), *target_logits.stride())
    draft_rows: tuple[Tensor | int | None, ...] = (None, 0, 0, 0)
    draft_states, masses, columns = None, states, capacity
    with on_device(target_logits.device):
        # A launch of no program at all still compiles: warmup relies on it.
        launch(
            needed["target"],
            capacity * num_chunks,
            *(target_logits, *target_logits.stride(), request_ids.contiguous(), *layout),
            *(temperatures, host_temperature, states, *sizes),
        )
        if draft is not None:
            draft_rows = (_bits(draft), *draft.stride())
            draft_states = states.new_empty(2 * num_chunks + 1, num_requests * num_drafts)
            masses, columns = states.new_empty(2 * num_chunks, num_requests), num_requests
            launch(
                needed["draft"],
                num_requests * num_drafts * num_chunks,
                *(draft, *draft.stride(), *layout, temperatures, draft_states, *sizes),
            )
        launch(
            needed["decide"],
            num_requests,
            *(states, draft_states, *layout, uniforms.contiguous(), temperatures, host_temperature),
            *(tokens, counts, is_coupled.view(torch.int8), plan, *sizes),
        )
        if draft is not None:
            launch(
                needed["residual"],
                num_requests * num_chunks,
                *(*target_rows, *draft_rows, plan, masses, num_requests, vocabulary, form),
            )
        if not is_greedy:
            launch(
                needed["draw"],
                num_requests,
                *(*target_rows, *draft_rows, plan, masses, columns, tokens, num_drafts + 1, vocabulary, form),
            )
    return tokens, counts, is_coupled


def warmup(device: torch.device, dtypes: Collection[torch.dtype], max_requests: int, max_drafts: int) -> int:
    """Compile and load every variant that such batches can ask for, by calls with an empty one."""
    reached: set[str] = set()
    ints = torch.empty(0, dtype=torch.int32, device=device)
    for target, draft, drafts in itertools.product(dtypes, (None, *dtypes), {0, max_drafts}):
        reached.update(variant.name for variant in _needed(target, draft, drafts).values())
        logits = torch.empty((0, 1), dtype=target, device=device)
        draft_logits = None if draft is None else torch.empty((0, drafts, 1), dtype=draft, device=device)
        ids = torch.empty((0, drafts), dtype=torch.int32, device=device)
        uniforms = torch.empty((0, drafts + 1), dtype=torch.float32, device=device)
        accept(logits, ints, ints, ints, ints, ids, uniforms, draft_logits, None, 1.0, True)
    return len(reached)


def _bits(logits: Tensor) -> Tensor:
    return logits if logits.dtype == torch.float32 else logits.detach().view(torch.int16)


def _form(target: Tensor, draft: Tensor | None, ids: Tensor, temperature: Tensor | None, coupled: bool) -> int:
    bits = [
        (drawing.TARGET_WIDE, is_wide(target)),
        (drawing.TARGET_BF16, target.dtype == torch.bfloat16),
        (drawing.DRAFT_WIDE, draft is not None and is_wide(draft)),
        (drawing.DRAFT_BF16, draft is not None and draft.dtype == torch.bfloat16),
        (drawing.WIDE_IDS, ids.dtype == torch.int64),
        (drawing.TEMPERATURES, temperature is not None),
        (drawing.COUPLED, coupled),
    ]
    form: int = sum(bit.value for bit, is_set in bits if is_set)
    return form
