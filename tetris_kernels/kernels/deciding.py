"""Deciding which drafts are accepted, from the states of their rows: one program per request, drafts on the lanes.

Chunks are combined one after another, in the same order for every shape of the batch.
"""

import triton
import triton.language as tl

from tetris_kernels.kernels.accept_kernels import load_draft_ids, request_layout, temperature_of
from tetris_kernels.kernels.drawing import (
    ANCHOR,
    COLUMN,
    DRAFT_ANCHOR,
    DRAFT_INVERSE,
    DRAFT_ROW,
    EXCLUDED,
    INVERSE,
    NONE,
    PLAN,
    SCALE,
    SLOT,
    UNIFORM,
)
from tetris_kernels.kernels.vocabulary import CHUNK, LOG2_E, anchor_of, base2_scale

GROUP = tl.constexpr(8)  # chunks whose states are loaded at a time


@triton.jit
def row_softmax(states_ptr, row, num_rows, position, count, num_chunks, scale):
    """Of the rows of positions below count: largest logit but the draft's, largest at all, 1 / sum, and p(draft)."""
    largest = tl.full(position.shape, float("-inf"), tl.float32)
    for group in range(0, num_chunks, GROUP):
        for c in tl.static_range(GROUP):
            live = position < tl.where(group + c < num_chunks, count, 0)
            found = tl.load(states_ptr + (group + c) * num_rows + row, mask=live, other=float("-inf"))
            largest = tl.maximum(largest, found)
    anchor = anchor_of(largest)
    rest = tl.zeros(position.shape, tl.float32)
    for group in range(0, num_chunks, GROUP):
        for c in tl.static_range(GROUP):
            live = position < tl.where(group + c < num_chunks, count, 0)
            pointers = states_ptr + (group + c) * num_rows + row
            found = tl.load(pointers, mask=live, other=float("-inf"))
            rest += tl.load(pointers + num_chunks * num_rows, mask=live, other=0.0) * tl.exp2((found - anchor) * scale)
    own = tl.load(states_ptr + 2 * num_chunks * num_rows + row, mask=position < count, other=float("-inf"))
    top = anchor_of(tl.maximum(largest, own))
    power = tl.exp2((own - top) * scale)
    inverse = 1.0 / (rest * tl.exp2((largest - top) * scale) + power)
    return anchor, top, inverse, power * inverse


@triton.jit
def row_argmax(states_ptr, row, num_rows, position, count, num_chunks, draft_id, vocabulary):
    """Of the rows of positions below count: whether the draft is the argmax, and the argmax of the others."""
    largest = tl.full(position.shape, float("-inf"), tl.float32)
    choice = tl.full(position.shape, NONE, tl.int32)
    for group in range(0, num_chunks, GROUP):
        for c in tl.static_range(GROUP):
            live = position < tl.where(group + c < num_chunks, count, 0)
            pointers = states_ptr + (group + c) * num_rows + row
            found = tl.load(pointers, mask=live, other=float("-inf"))
            first = tl.load(pointers + num_chunks * num_rows, mask=live, other=0.0).to(tl.int32, bitcast=True)
            choice = tl.where(found > largest, first, choice)
            largest = tl.maximum(largest, found)
    own = tl.load(states_ptr + 2 * num_chunks * num_rows + row, mask=position < count, other=float("-inf"))
    is_draft = (draft_id >= 0) & ((own > largest) | ((own == largest) & (draft_id < choice)))
    return is_draft, tl.minimum(tl.maximum(choice, 0), vocabulary - 1)


@triton.jit
def _at(position, which, values):
    """The value at one position."""
    return tl.sum(tl.where(position == which, values, 0))


@triton.jit(
    do_not_specialize=["states_ptr", "draft_states_ptr", "cu_seqlens_ptr", "lens_ptr", "draft_lens_ptr", "ids_ptr"]
    + ["uniforms_ptr", "temperatures_ptr", "host_temperature", "tokens_ptr", "counts_ptr", "coupled_ptr"]
    + ["plan_ptr", "num_requests", "num_drafts", "vocabulary", "capacity", "form"]
)
def decide_kernel(
    states_ptr,  # [2 * chunks + 1, capacity] float32
    draft_states_ptr,  # [2 * chunks + 1, N * K] float32; None: drafts are one-hot
    cu_seqlens_ptr,  # [N + 1] int32
    lens_ptr,  # [N] int32
    draft_lens_ptr,  # [N] int32
    ids_ptr,  # [N, K] int32 or int64, as 32-bit words
    uniforms_ptr,  # [N, K + 1] float32
    temperatures_ptr,  # [N] float32
    host_temperature,
    tokens_ptr,  # [N, K + 1] int64
    counts_ptr,  # [N] int32
    coupled_ptr,  # [N] bool, as int8
    plan_ptr,  # [N, PLAN] int32
    num_requests,
    num_drafts,
    vocabulary,
    capacity,
    form,
    POSITIONS: tl.constexpr,  # more than num_drafts
):
    request = tl.program_id(0)
    position = tl.arange(0, POSITIONS)
    num_chunks = tl.cdiv(vocabulary, CHUNK)
    layout = (cu_seqlens_ptr, lens_ptr, draft_lens_ptr)
    first, lens, tested = request_layout(request, layout, num_drafts, capacity, form)
    draft_id = load_draft_ids(ids_ptr, request, position, tested, num_drafts, vocabulary, form)
    uniform = tl.load(uniforms_ptr + request * (num_drafts + 1) + position, mask=position <= num_drafts, other=0.0)
    temperature = temperature_of(request, temperatures_ptr, host_temperature, form)
    scale = base2_scale(temperature)

    anchor = tl.zeros((POSITIONS,), tl.float32)
    inverse = anchor
    draft_anchor = anchor
    draft_inverse = anchor
    if temperature > 0:
        others, top, inverse, p = row_softmax(
            states_ptr, first + position, capacity, position, lens + 1, num_chunks, scale
        )
        q = tl.full((POSITIONS,), 1.0, tl.float32)
        anchor = others
        if draft_states_ptr is not None:
            rows = request * num_drafts + position
            num_rows = num_requests * num_drafts
            _, draft_anchor, draft_inverse, q = row_softmax(
                draft_states_ptr, rows, num_rows, position, tested, num_chunks, LOG2_E
            )
            anchor = top
        passes = (p > 0) & (uniform * q < p)
        choice = tl.full((POSITIONS,), -1, tl.int32)
    else:
        passes, choice = row_argmax(
            states_ptr, first + position, capacity, position, lens + 1, num_chunks, draft_id, vocabulary
        )

    passed = tl.min(tl.where(passes & (position < tested), NONE, tl.minimum(position, tested)))
    coupled = (passed > lens) & (lens >= 0)
    token = tl.where(position < passed, draft_id, tl.where((position == passed) & (passed <= lens), choice, -1))
    draws = (passed <= lens) & (temperature > 0)

    tl.store(tokens_ptr + request * (num_drafts + 1) + position, token.to(tl.int64), mask=position <= num_drafts)
    tl.store(counts_ptr + request, tl.minimum(passed, lens) + 1)
    tl.store(coupled_ptr + request, coupled.to(tl.int8))
    plan_ptr += request * PLAN
    tl.store(plan_ptr + SLOT, tl.where(draws, first + passed, -1))
    tl.store(plan_ptr + COLUMN, passed)
    tl.store(plan_ptr + DRAFT_ROW, tl.where(passed < tested, passed, -1))
    tl.store(plan_ptr + EXCLUDED, _at(position, passed, draft_id))
    tl.store(plan_ptr + UNIFORM, _at(position, num_drafts, uniform).to(tl.int32, bitcast=True))
    tl.store(plan_ptr + SCALE, scale.to(tl.int32, bitcast=True))
    tl.store(plan_ptr + ANCHOR, _at(position, passed, anchor).to(tl.int32, bitcast=True))
    tl.store(plan_ptr + INVERSE, _at(position, passed, inverse).to(tl.int32, bitcast=True))
    tl.store(plan_ptr + DRAFT_ANCHOR, _at(position, passed, draft_anchor).to(tl.int32, bitcast=True))
    tl.store(plan_ptr + DRAFT_INVERSE, _at(position, passed, draft_inverse).to(tl.int32, bitcast=True))
