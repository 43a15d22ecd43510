"""The score kernels: a state of each chunk of logits, then the score of each draft, and with it the selection.

States are planes of [rows] float32, a row for each draft: of every chunk its largest logit; of every chunk the sum
of its terms exp((logit - that) / temperature); the draft's own logit, or for COLLISION of every chunk the sum of the
terms' squares. Rows that are not real drafts have none.
"""

import triton
import triton.language as tl

from tetris_kernels.kernels.loading import DRAFT_LENS, words_of
from tetris_kernels.kernels.primitives import load_low, saturate
from tetris_kernels.kernels.select_kernel import select_batch
from tetris_kernels.kernels.vocabulary import CHUNK, LN_2, anchor_of, base2_scale, load_chunk

# Bits of `form`, above those of select's kernel: shifts of two-bit fields.
DRAFT_IDS = tl.constexpr(12)  # 32-bit words an element
TEMPERATURE = tl.constexpr(14)  # 32-bit words an element, 0 if it is the host's
KIND = tl.constexpr(16)
ALIGNED = tl.constexpr(1 << 18)  # whole rows are aligned pieces of 16 bytes

GROUP = tl.constexpr(8)  # chunks whose states are in flight together
BLOCK = tl.constexpr(512)  # rows that a program has at a time

TOKEN = tl.constexpr(0)
TOP = tl.constexpr(1)
COLLISION = tl.constexpr(2)


@triton.jit
def _is_real(draft, request, num_requests, num_drafts, draft_lens_ptr, form):
    """Whether a draft is below its request's draft_lens."""
    words = words_of(form, DRAFT_LENS)
    low = load_low(draft_lens_ptr, request, num_requests, words, num_drafts)
    return draft < saturate(low, draft_lens_ptr, request, num_requests, words)


@triton.jit
def _scale(temperature_ptr, host_temperature, request, num_requests, form):
    """`base2_scale` of a request's temperature."""
    words = words_of(form, TEMPERATURE)
    return base2_scale(load_low(temperature_ptr, request, num_requests, words, host_temperature))


@triton.jit(
    do_not_specialize=["logits_ptr", "stride_n", "stride_k", "stride_v", "ids_ptr", "ids_stride_n", "ids_stride_k"]
    + ["temperature_ptr", "host_temperature", "draft_lens_ptr", "states_ptr"]
    + ["num_requests", "num_drafts", "vocabulary", "form"]
)
def chunk_kernel(
    logits_ptr,  # [N, K, V] float32, bfloat16 or float16
    stride_n: tl.int64,  # in elements
    stride_k: tl.int64,  # in elements
    stride_v: tl.int64,  # in elements
    ids_ptr,  # [N, K] int32 or int64, as 32-bit words
    ids_stride_n: tl.int64,  # in words
    ids_stride_k: tl.int64,  # in words
    temperature_ptr,  # [N] float32
    host_temperature,  # that of all where there is no tensor
    draft_lens_ptr,  # [N] int32 or int64, as 32-bit words
    states_ptr,  # [planes, N * K] float32
    num_requests,
    num_drafts,
    vocabulary,
    form,  # bits that say what the arguments are
):
    num_chunks = tl.cdiv(vocabulary, CHUNK)
    row = tl.program_id(0) // num_chunks
    chunk = tl.program_id(0) % num_chunks
    request = row // num_drafts
    draft = row % num_drafts
    if _is_real(draft, request, num_requests, num_drafts, draft_lens_ptr, form):
        scale = _scale(temperature_ptr, host_temperature, request, num_requests, form)
        id_ptr = ids_ptr + request * ids_stride_n + draft * ids_stride_k
        id_low = tl.load(id_ptr)
        id_high = tl.load(id_ptr + 1, mask=words_of(form, DRAFT_IDS) > 1, other=0)
        row_ptr = logits_ptr + request * stride_n + draft * stride_k
        # Only the load has two forms: what is added up, and in which order, is the same for all strides.
        if (form & ALIGNED) != 0:
            _, logits = load_chunk(row_ptr, 1, chunk, vocabulary, False, True, CHUNK)
        else:
            _, logits = load_chunk(row_ptr, stride_v, chunk, vocabulary, False, False, CHUNK)

        num_rows = (num_requests * num_drafts).to(tl.int64)
        state_ptr = states_ptr + chunk * num_rows + row
        largest = tl.max(logits, axis=0)
        terms = tl.exp2((logits - anchor_of(largest)) * scale)
        tl.store(state_ptr, largest)
        tl.store(state_ptr + num_chunks * num_rows, tl.sum(terms, axis=0))
        if words_of(form, KIND) == COLLISION:
            tl.store(state_ptr + 2 * num_chunks * num_rows, tl.sum(terms * terms, axis=0))
        elif words_of(form, KIND) == TOKEN:
            is_token = (id_low >= 0) & (id_low < vocabulary) & (id_high == 0)
            if chunk == tl.where(is_token, id_low // CHUNK, 0):
                drafted = tl.load(row_ptr + id_low * stride_v, mask=is_token, other=float("-inf"))
                tl.store(states_ptr + 2 * num_chunks * num_rows + row, drafted.to(tl.float32))


@triton.jit
def _load_planes(plane_ptr, rows, num_rows, first, num_chunks, real):
    """GROUP planes of [BLOCK] rows from the first on; the last one for those beyond it."""
    planes = ()
    for c in tl.static_range(GROUP):
        plane = tl.minimum(first + c, num_chunks - 1)
        planes = planes + (tl.load(plane_ptr + plane * num_rows + rows, mask=real, other=0.0),)
    return planes


@triton.jit
def _store_scores(states_ptr, temperature, draft_lens_ptr, scores_ptr, sizes, form, rows):
    """The scores of some rows, from their states.

    Chunks are added in their order, and no product is left to be fused or not: all kernels get the same bits.
    """
    num_requests, num_drafts, num_chunks = sizes
    num_rows = (num_requests * num_drafts).to(tl.int64)
    kind = words_of(form, KIND)
    request = rows // num_drafts
    inside = rows < num_rows
    real = inside & _is_real(rows % num_drafts, request, num_requests, num_drafts, draft_lens_ptr, form)
    scale = _scale(temperature[0], temperature[1], request, num_requests, form)
    limits = tl.where(real, num_chunks, 0)
    sums_ptr = states_ptr + num_chunks * num_rows
    third_ptr = sums_ptr + num_chunks * num_rows
    with_logit = real & (rows < tl.where(kind == TOKEN, num_rows, 0))
    logit = tl.load(third_ptr + rows, mask=with_logit, other=0.0)

    largest = tl.full(rows.shape, float("-inf"), tl.float32)
    total = tl.zeros(rows.shape, tl.float32)
    squares = tl.zeros(rows.shape, tl.float32)
    for first in range(0, num_chunks, GROUP):
        tops = _load_planes(states_ptr, rows, num_rows, first, num_chunks, real)
        sums = _load_planes(sums_ptr, rows, num_rows, first, num_chunks, real)
        before = largest
        for c in tl.static_range(GROUP):
            largest = tl.maximum(largest, tops[c])
        anchor = anchor_of(largest)
        shrink = tl.exp2((before - anchor) * scale)
        total = total * shrink
        for c in tl.static_range(GROUP):
            # A chunk beyond the last has a weight of 0.
            weight = tl.exp2((tops[c] - anchor) * scale)
            total = tl.fma(sums[c], tl.where(limits > first + c, weight, 0.0), total)
        if kind == COLLISION:
            thirds = _load_planes(third_ptr, rows, num_rows, first, num_chunks, real)
            squares = squares * (shrink * shrink)
            for c in tl.static_range(GROUP):
                weight = tl.exp2((tops[c] - anchor) * scale)
                squares = tl.fma(thirds[c], tl.where(limits > first + c, weight * weight, 0.0), squares)

    if kind == COLLISION:
        score = tl.log2(squares) - 2 * tl.log2(total)
    else:
        logit = tl.where(kind == TOKEN, logit, largest)
        score = tl.fma(logit - anchor_of(largest), scale, -tl.log2(total))
    tl.store(scores_ptr + rows, tl.where(real, score * LN_2, float("-inf")), mask=inside)


@triton.jit(
    do_not_specialize=["states_ptr", "temperature_ptr", "host_temperature", "draft_lens_ptr", "scores_ptr"]
    + ["num_requests", "num_drafts", "num_chunks", "form"]
)
def score_kernel(
    states_ptr,  # [planes, N * K] float32
    temperature_ptr,  # [N] float32
    host_temperature,
    draft_lens_ptr,  # [N] int32 or int64, as 32-bit words
    scores_ptr,  # [N, K] float32
    num_requests,
    num_drafts,
    num_chunks,
    form,
    ROWS: tl.constexpr,
):
    temperature = (temperature_ptr, host_temperature)
    sizes = (num_requests, num_drafts, num_chunks)
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    _store_scores(states_ptr, temperature, draft_lens_ptr, scores_ptr, sizes, form, rows)


@triton.jit(
    do_not_specialize=["states_ptr", "temperature_ptr", "host_temperature", "scores_ptr", "budget_ptr", "host_budget"]
    + ["draft_lens_ptr", "min_lens_ptr", "max_lens_ptr", "log_weights_ptr", "lens_ptr", "cu_lens_ptr"]
    + ["num_requests", "num_drafts", "num_chunks", "form"]
)
def score_and_select_kernel(
    states_ptr,  # [planes, N * K] float32
    temperature_ptr,  # [N] float32
    host_temperature,
    scores_ptr,  # [N, K] float32
    budget_ptr,  # this and the rest as for select_kernel
    host_budget,
    draft_lens_ptr,
    min_lens_ptr,
    max_lens_ptr,
    log_weights_ptr,
    lens_ptr,
    cu_lens_ptr,
    num_requests,
    num_drafts,
    num_chunks,
    form,
    N_PAD: tl.constexpr,
    K_PAD: tl.constexpr,
):
    temperature = (temperature_ptr, host_temperature)
    sizes = (num_requests, num_drafts, num_chunks)
    for first in range(0, num_requests * num_drafts, BLOCK):
        rows = first + tl.arange(0, BLOCK)
        _store_scores(states_ptr, temperature, draft_lens_ptr, scores_ptr, sizes, form, rows)
    # Threads read scores that others wrote: a row of the selection is one thread's.
    tl.debug_barrier()
    per_request = (draft_lens_ptr, min_lens_ptr, max_lens_ptr, log_weights_ptr)
    batch = (scores_ptr, num_drafts.to(tl.int64), 1, budget_ptr, host_budget, num_requests, num_drafts, form)
    select_batch(batch, per_request, lens_ptr, cu_lens_ptr, N_PAD, K_PAD)
