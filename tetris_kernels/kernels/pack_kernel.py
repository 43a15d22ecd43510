"""The pack kernel: program p lays out a block of requests, and pads a block of slots.

Where a program's requests begin follows from the lengths of all requests before them, which every program
reads: a few bytes a request, and no second launch, no wait for another program.
"""

import triton
import triton.language as tl

from tetris_kernels.kernels.loading import words_of
from tetris_kernels.kernels.primitives import load_low

REQUESTS = tl.constexpr(32)  # requests of a program
WIDTH = tl.constexpr(16)  # drafts of a request that are moved at a time
SLOTS = tl.constexpr(1024)  # slots of a program that it pads, where they are padding
TILE = tl.constexpr(1024)  # requests that are counted at a time

# Shifts of the two-bit fields of `form`: 32-bit words an element, 0 if absent.
CONTEXT_LENS = tl.constexpr(0)
DRAFT_LENS = tl.constexpr(2)


@triton.jit
def _load_lengths(lengths, rows, num_requests, num_drafts, form):
    """lens, the high words of context_lens, the low and the high words of draft_lens; an int32 is both of its words.

    Requests beyond the last sit out: -1 in context_lens.
    """
    lens_ptr, context_lens_ptr, draft_lens_ptr = lengths
    context_words, draft_words = words_of(form, CONTEXT_LENS), words_of(form, DRAFT_LENS)
    lens = tl.load(lens_ptr + rows, mask=rows < num_requests, other=0)
    context_high = load_low(context_lens_ptr + context_words - 1, rows, num_requests, context_words, -1)
    low = load_low(draft_lens_ptr, rows, num_requests, draft_words, num_drafts)
    high = load_low(draft_lens_ptr + draft_words - 1, rows, num_requests, draft_words, 0)
    return lens, context_high, low, high


@triton.jit
def _count_tokens(loaded, num_drafts, form):
    """Of each request its tokens, 0 if it sits out, and the drafts that there were to select from."""
    lens, context_high, low, high = loaded
    beyond = (words_of(form, DRAFT_LENS) == 2) & (high != low >> 31)
    available = tl.where(beyond, tl.where(high < 0, 0, num_drafts), tl.minimum(tl.maximum(low, 0), num_drafts))
    tokens = tl.minimum(tl.maximum(lens, 0), available) + 1
    return tl.where(context_high < 0, 0, tokens), available


@triton.jit
def _sum_tokens(lengths, first, num_requests, num_drafts, form):
    """Tokens of the requests before `first`, and of all."""
    before = tl.zeros((TILE,), tl.int32)
    total = tl.zeros((TILE,), tl.int32)
    for start in range(0, num_requests, TILE):
        rows = tl.arange(0, TILE) + start
        tokens, _ = _count_tokens(_load_lengths(lengths, rows, num_requests, num_drafts, form), num_drafts, form)
        before += tl.where(rows < first, tokens, 0)
        total += tokens
    return tl.sum(before), tl.sum(total)


@triton.jit
def _load_drafts(drafts, rows, columns, lens):
    """The ids of some columns, below `lens` of each row."""
    ids_ptr, stride_n, stride_k = drafts
    return tl.load(ids_ptr + rows[:, None] * stride_n + columns * stride_k, mask=columns < lens[:, None], other=0)


@triton.jit
def _join_words(low, high, words):
    """int64 from the low and the high words of int32 or int64 elements."""
    low = low.to(tl.int64)
    return tl.where(words == 2, (high.to(tl.int64) << 32) | (low & 0xFFFFFFFF), low)


@triton.jit
def _store_slots(outputs, slots, tokens, positions, requests, mask):
    input_ids_ptr, position_ids_ptr, request_ids_ptr = outputs
    tl.store(input_ids_ptr + slots, tokens, mask=mask)
    tl.store(position_ids_ptr + slots, positions, mask=mask)
    tl.store(request_ids_ptr + slots, requests, mask=mask)


@triton.jit(
    do_not_specialize=["lens_ptr", "draft_ids_ptr", "stride_n", "stride_k", "anchor_ids_ptr", "context_lens_ptr"]
    + ["draft_lens_ptr", "input_ids_ptr", "position_ids_ptr", "request_ids_ptr", "cu_seqlens_ptr", "packed_lens_ptr"]
    + ["available_ptr", "overflow_ptr", "num_requests", "num_drafts", "capacity", "pad_id", "form"]
)
def pack_kernel(
    lens_ptr,  # [N] int32
    draft_ids_ptr,  # [N, K] int32 or int64
    stride_n: tl.int64,  # in elements
    stride_k: tl.int64,  # in elements
    anchor_ids_ptr,  # [N] as draft_ids_ptr
    context_lens_ptr,  # [N] int32 or int64, as 32-bit words
    draft_lens_ptr,  # [N] int32 or int64, as 32-bit words
    input_ids_ptr,  # [capacity] int64
    position_ids_ptr,  # [capacity] int64
    request_ids_ptr,  # [capacity] int32
    cu_seqlens_ptr,  # [N + 1] int32
    packed_lens_ptr,  # [N] int32
    available_ptr,  # [N] int32
    overflow_ptr,  # [1] bool
    num_requests,
    num_drafts,
    capacity,
    pad_id: tl.int64,
    form,  # words of context_lens and draft_lens: see above
):
    program = tl.program_id(0)
    first = program * REQUESTS
    rows = tl.arange(0, REQUESTS) + first
    live = rows < num_requests
    columns = tl.arange(0, WIDTH)[None, :]
    slots = tl.arange(0, SLOTS) + program * SLOTS
    # Tuples only from here on: as arguments their elements would be specialised on their alignment.
    lengths = (lens_ptr, context_lens_ptr, draft_lens_ptr)
    drafts = (draft_ids_ptr, stride_n, stride_k)
    outputs = (input_ids_ptr, position_ids_ptr, request_ids_ptr)

    # Everything is loaded ahead of the sums, and used behind them: one round trip to memory.
    loaded = _load_lengths(lengths, rows, num_requests, num_drafts, form)
    context_words = words_of(form, CONTEXT_LENS)
    context_low = load_low(context_lens_ptr, rows, num_requests, context_words, 0)
    anchors = tl.load(anchor_ids_ptr + rows, mask=live, other=0)
    ids = _load_drafts(drafts, rows, columns, tl.where(live, num_drafts, 0))
    before, total = _sum_tokens(lengths, first, num_requests, num_drafts, form)

    context = _join_words(context_low, loaded[1], context_words)
    tokens, available = _count_tokens(loaded, num_drafts, form)
    ends = tl.cumsum(tokens, axis=0) + before
    starts = ends - tokens
    # How much of each request is there: what overflows is cut off.
    packed = tl.maximum(tl.minimum(ends, capacity) - starts, 0)

    _store_slots(outputs, starts, anchors.to(tl.int64), context, rows, packed > 0)
    for start in range(0, num_drafts, WIDTH):
        draft = columns + start
        ahead = _load_drafts(drafts, rows, draft + WIDTH, packed - 1)
        mask = draft < packed[:, None] - 1
        slot, position = starts[:, None] + 1 + draft, context[:, None] + 1 + draft
        request = tl.broadcast_to(rows[:, None], mask.shape)
        _store_slots(outputs, slot, ids.to(tl.int64), position, request, mask)
        ids = ahead
    _store_slots(outputs, slots, pad_id, 0, -1, (slots >= total) & (slots < capacity))

    tl.store(cu_seqlens_ptr + 1 + rows, tl.minimum(ends, capacity), mask=live)
    tl.store(packed_lens_ptr + rows, tl.maximum(packed - 1, 0), mask=live)
    tl.store(available_ptr + rows, available, mask=live)
    if program == 0:
        tl.store(cu_seqlens_ptr, 0)
        tl.store(overflow_ptr, total > capacity)
