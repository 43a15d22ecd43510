"""The first kernels of accept: statistics of the rows of logits, of the target and of the drafts.

A row's states are float32 [2 * chunks + 1, rows]: of each chunk the largest logit and the sum of
exp2((logit - that) * scale), both without the draft that is tested at the row, and last that draft's logit.
Left apart, the draft's own part does not drown the rest where it is nearly certain. Rows of greedy requests
have, for the sums, the first token of the largest logit, as bits.
"""

import triton
import triton.language as tl

from tetris_kernels.kernels.drawing import (
    COUPLED,
    DRAFT_WIDE,
    NONE,
    TARGET_WIDE,
    TEMPERATURES,
    WIDE_IDS,
)
from tetris_kernels.kernels.primitives import load_low, saturate
from tetris_kernels.kernels.vocabulary import CHUNK, LOG2_E, anchor_of, base2_scale, load_chunk


@triton.jit
def request_layout(request, layout, num_drafts, capacity, form):
    """A request's first slot, its drafts in the batch (-1: it has no slot), and how many of its drafts are tested.

    Whatever the tensors hold, slots from the first on, one more than drafts, are below the capacity.
    """
    cu_seqlens_ptr, lens_ptr, draft_lens_ptr = layout
    first = tl.minimum(tl.maximum(tl.load(cu_seqlens_ptr + request), 0), capacity)
    end = tl.minimum(tl.maximum(tl.load(cu_seqlens_ptr + request + 1), first), capacity)
    lens = tl.minimum(tl.maximum(tl.load(lens_ptr + request), 0), tl.minimum(end - first - 1, num_drafts))
    drafts = tl.minimum(tl.load(draft_lens_ptr + request), num_drafts)
    tested = tl.minimum(tl.where((form & COUPLED) != 0, lens + 1, lens), drafts)
    return first, lens, tl.where(lens < 0, 0, tl.maximum(tested, 0))


@triton.jit
def temperature_of(request, temperatures_ptr, host_temperature, form):
    # A bound as mask: see load_low.
    count = tl.where((form & TEMPERATURES) != 0, request + 1, 0)
    return tl.load(temperatures_ptr + request, mask=request < count, other=host_temperature)


@triton.jit
def load_draft_ids(ids_ptr, request, position, tested, num_drafts, vocabulary, form):
    """The drafts at positions of a request, -1 for those that are not tested or no token."""
    words = tl.where((form & WIDE_IDS) != 0, 2, 1)
    row_ptr = ids_ptr + request * num_drafts * words
    ids = saturate(load_low(row_ptr, position, tested, words, -1), row_ptr, position, tested, words)
    return tl.where((ids >= 0) & (ids < vocabulary), ids, -1)


@triton.jit
def _chunk_state(row_ptr, stride_v, chunk, scale, greedy, owner, WIDE: tl.constexpr):
    """A chunk's largest logit and sum of powers, or its first token, without the draft; and the draft."""
    request, slot, layout, ids_ptr, num_drafts, vocabulary, capacity, form = owner
    token, logits = load_chunk(row_ptr, stride_v, chunk, vocabulary, False, WIDE, CHUNK)
    # The logits are on their way while one of the next loads waits for the other: the barrier keeps that order.
    tl.debug_barrier()
    first, _, tested = request_layout(request, layout, num_drafts, capacity, form)
    # A slot before its request's first one is none that pack makes.
    position = tl.maximum(slot - first, 0)
    draft_id = load_draft_ids(ids_ptr, request, position, tested, num_drafts, vocabulary, form)
    logits = tl.where(token == draft_id, float("-inf"), logits)
    largest = tl.max(logits)
    if greedy:
        second = tl.min(tl.where(logits == largest, token, NONE)).to(tl.float32, bitcast=True)
    else:
        second = tl.sum(tl.exp2((logits - anchor_of(largest)) * scale))
    return largest, second, draft_id


@triton.jit
def _store_states(row_ptr, stride_v, chunk, is_wide, scale, greedy, owner, states_ptr, row, num_rows, num_chunks):
    """What a program of target_kernel or draft_kernel does; owner: of the row, see _chunk_state."""
    if is_wide:
        largest, second, draft_id = _chunk_state(row_ptr, stride_v, chunk, scale, greedy, owner, True)
    else:
        largest, second, draft_id = _chunk_state(row_ptr, stride_v, chunk, scale, greedy, owner, False)
    tl.store(states_ptr + chunk * num_rows + row, largest)
    tl.store(states_ptr + (num_chunks + chunk) * num_rows + row, second)
    if chunk == 0:
        own = tl.load(row_ptr + draft_id * stride_v, mask=draft_id >= 0, other=float("-inf"))
        tl.store(states_ptr + 2 * num_chunks * num_rows + row, own.to(tl.float32))


@triton.jit(
    do_not_specialize=["logits_ptr", "stride_row", "stride_v", "request_ids_ptr", "cu_seqlens_ptr", "lens_ptr"]
    + ["draft_lens_ptr", "ids_ptr", "temperatures_ptr", "host_temperature", "states_ptr", "num_requests"]
    + ["num_drafts", "vocabulary", "capacity", "form"]
)
def target_kernel(
    logits_ptr,  # [capacity, V]
    stride_row: tl.int64,  # strides in elements
    stride_v: tl.int64,
    request_ids_ptr,  # [capacity] int32
    cu_seqlens_ptr,  # [N + 1] int32
    lens_ptr,  # [N] int32
    draft_lens_ptr,  # [N] int32
    ids_ptr,  # [N, K] int32 or int64, as 32-bit words
    temperatures_ptr,  # [N] float32
    host_temperature,
    states_ptr,  # [2 * chunks + 1, capacity] float32
    num_requests,
    num_drafts,
    vocabulary,
    capacity,
    form,  # bits that say what the arguments are: see drawing.py
):
    num_chunks = tl.cdiv(vocabulary, CHUNK)
    slot = tl.program_id(0) // num_chunks
    chunk = tl.program_id(0) % num_chunks
    request = tl.load(request_ids_ptr + slot)
    if (request < 0) | (request >= num_requests):
        return
    temperature = temperature_of(request, temperatures_ptr, host_temperature, form)

    layout = (cu_seqlens_ptr, lens_ptr, draft_lens_ptr)
    owner = (request, slot, layout, ids_ptr, num_drafts, vocabulary, capacity, form)
    row_ptr = logits_ptr + slot * stride_row
    is_wide = (form & TARGET_WIDE) != 0
    greedy = (temperature > 0) == 0
    scale = base2_scale(temperature)
    _store_states(row_ptr, stride_v, chunk, is_wide, scale, greedy, owner, states_ptr, slot, capacity, num_chunks)


@triton.jit(
    do_not_specialize=["logits_ptr", "stride_n", "stride_k", "stride_v", "cu_seqlens_ptr", "lens_ptr"]
    + ["draft_lens_ptr", "ids_ptr", "temperatures_ptr", "states_ptr", "num_requests"]
    + ["num_drafts", "vocabulary", "capacity", "form"]
)
def draft_kernel(
    logits_ptr,  # [N, K, V]
    stride_n: tl.int64,  # strides in elements
    stride_k: tl.int64,
    stride_v: tl.int64,
    cu_seqlens_ptr,  # [N + 1] int32
    lens_ptr,  # [N] int32
    draft_lens_ptr,  # [N] int32
    ids_ptr,  # [N, K] int32 or int64, as 32-bit words
    temperatures_ptr,  # [N] float32, of the target
    states_ptr,  # [2 * chunks + 1, N * K] float32
    num_requests,
    num_drafts,
    vocabulary,
    capacity,
    form,
):
    num_chunks = tl.cdiv(vocabulary, CHUNK)
    row = tl.program_id(0) // num_chunks
    chunk = tl.program_id(0) % num_chunks
    request = row // num_drafts
    position = row % num_drafts
    layout = (cu_seqlens_ptr, lens_ptr, draft_lens_ptr)
    first, _, tested = request_layout(request, layout, num_drafts, capacity, form)
    # A greedy target does not ask how the drafts were drawn.
    sampled = temperature_of(request, temperatures_ptr, 1.0, form) > 0
    if position >= tl.where(sampled, tested, 0):
        return

    owner = (request, first + position, layout, ids_ptr, num_drafts, vocabulary, capacity, form)
    row_ptr = logits_ptr + request * stride_n + position * stride_k
    is_wide = (form & DRAFT_WIDE) != 0
    num_rows = num_requests * num_drafts
    # In the target's form: where p and q have the same logits, they come out the same bit for bit.
    _store_states(row_ptr, stride_v, chunk, is_wide, LOG2_E, False, owner, states_ptr, row, num_rows, num_chunks)
