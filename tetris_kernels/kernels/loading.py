"""Loading what a select kernel reads: log-probs of any strides, the budget, and the optional tensors."""

import triton
import triton.language as tl

from tetris_kernels.kernels.primitives import load_high, load_low, narrow

# Bits of `form`: what the arguments are, told at run time so that it does not multiply the variants.
PACKED = tl.constexpr(1)  # every four drafts of a row are one aligned piece of memory
BFLOAT16 = tl.constexpr(2)  # 16-bit log-probs are bfloat16, else float16
BUDGET = tl.constexpr(2)  # from here on shifts of two-bit fields: 32-bit words an element, 0 if absent
DRAFT_LENS = tl.constexpr(4)
MIN_LENS = tl.constexpr(6)
MAX_LENS = tl.constexpr(8)
LOG_WEIGHTS = tl.constexpr(10)

WIDE = tl.constexpr(sum(2 << field for field in (4, 6, 8)))  # any int64 per request
ABSENT_MAX = tl.constexpr(0x7FFFFFFF)  # an absent ceiling


@triton.constexpr_function
def tile_width(k_pad):
    """Drafts of a row in one tile: four where a thread holds whole rows, else an eighth of the row."""
    return 4 if k_pad <= 16 else k_pad // 8


@triton.constexpr_function
def owns_rows(num_tiles):
    """Whether a thread holds whole rows, from the number of tiles of a row."""
    return num_tiles < 8


@triton.jit
def words_of(form, field: tl.constexpr):
    return (form >> field) & 3


@triton.jit
def _live(rows, num_rows, column, num_drafts):
    """[N_PAD] mask of a column of [N, K]."""
    return rows < tl.where(column < num_drafts, num_rows, 0)


@triton.jit
def _load_packed(logprobs_ptr, stride_n, rows, num_rows, num_drafts, CHUNKS: tl.constexpr):
    """[N, K] as tiles [N_PAD, 4], each row of a tile one vector load."""
    alignment: tl.constexpr = logprobs_ptr.dtype.element_ty.primitive_bitwidth // 2
    chunks = ()
    for c in tl.static_range(CHUNKS):
        ptrs = logprobs_ptr + rows[:, None] * stride_n + (tl.arange(0, 4) + c * 4)[None, :]
        ptrs = tl.multiple_of(ptrs, [alignment, alignment])
        mask = _live(rows, num_rows, c * 4, num_drafts)[:, None]
        chunks = chunks + (tl.load(ptrs, mask=mask, other=0),)
    return chunks


@triton.jit
def _load_columns(logprobs_ptr, stride_n, stride_k, rows, num_rows, num_drafts, CHUNKS: tl.constexpr):
    """[N, K] of any strides as tiles [N_PAD, 4], one load a column: coalesced for a transposed input."""
    chunks = ()
    for c in tl.static_range(CHUNKS):
        ptrs = logprobs_ptr + rows * stride_n + c * 4 * stride_k
        x0 = tl.load(ptrs, mask=_live(rows, num_rows, c * 4, num_drafts), other=0)
        x1 = tl.load(ptrs + stride_k, mask=_live(rows, num_rows, c * 4 + 1, num_drafts), other=0)
        x2 = tl.load(ptrs + 2 * stride_k, mask=_live(rows, num_rows, c * 4 + 2, num_drafts), other=0)
        x3 = tl.load(ptrs + 3 * stride_k, mask=_live(rows, num_rows, c * 4 + 3, num_drafts), other=0)
        tile = tl.join(tl.join(x0, x2), tl.join(x1, x3))
        chunks = chunks + (tl.reshape(tile, (rows.shape[0], 4)),)
    return chunks


@triton.jit
def _load_tiles(logprobs_ptr, stride_n, stride_k, rows, num_rows, num_drafts, TILES: tl.constexpr, WIDTH: tl.constexpr):
    """[N, K] of any strides as tiles [N_PAD, WIDTH], rows spread over the lanes of a warp."""
    chunks = ()
    for c in tl.static_range(TILES):
        # Columns beyond the last read it again: they are masked out later, and a predicate each costs registers.
        cols = tl.minimum(tl.arange(0, WIDTH) + c * WIDTH, num_drafts - 1)[None, :]
        ptrs = logprobs_ptr + rows[:, None] * stride_n + cols * stride_k
        chunks = chunks + (tl.load(ptrs, mask=(rows < num_rows)[:, None], other=0),)
        if owns_rows(TILES):
            # Only the rare path of short rows: one tile's addresses at a time, so that none spill.
            tl.debug_barrier()
    return chunks


@triton.jit
def load_batch(
    logprobs_ptr,
    stride_n,
    stride_k,
    budget_ptr,
    host_budget,
    rows,
    num_rows,
    num_drafts,
    form,
    K_PAD: tl.constexpr,
    BY_ROW: tl.constexpr,
):
    """[N, K] as a tuple of tiles [N_PAD, tile_width(K_PAD)], whole rows in a thread if BY_ROW; and the int32 budget.

    The budget is loaded in the branches of the log-probs: left outside, ptxas puts it before or behind them with
    a wait in between, a second round trip to memory. Both of its words, for the same reason; in this order, or ptxas
    waits for them behind packed rows (256 x 8), or lacks registers on sm_80 (1024 x 16).
    """
    words = words_of(form, BUDGET)
    width: tl.constexpr = tile_width(K_PAD)
    if not BY_ROW:
        chunks = _load_tiles(logprobs_ptr, stride_n, stride_k, rows, num_rows, num_drafts, K_PAD // width, width)
        low = load_low(budget_ptr, 0, 1, words, host_budget)
        high = load_high(budget_ptr, 0, 1, words)
    elif (form & PACKED) != 0:
        chunks = _load_packed(logprobs_ptr, stride_n, rows, num_rows, num_drafts, K_PAD // 4)
        high = load_high(budget_ptr, 0, 1, words)
        low = load_low(budget_ptr, 0, 1, words, host_budget)
    else:
        low = load_low(budget_ptr, 0, 1, words, host_budget)
        high = load_high(budget_ptr, 0, 1, words)
        chunks = _load_columns(logprobs_ptr, stride_n, stride_k, rows, num_rows, num_drafts, K_PAD // 4)
    return chunks, narrow(low, high, words > 1)


@triton.jit
def load_per_request(per_request, form, rows, num_requests):
    """draft_lens, min_lens and max_lens [N_PAD] int32, low words, and the bits of log_weights."""
    draft_lens_ptr, min_lens_ptr, max_lens_ptr, log_weights_ptr = per_request
    # The branch is always taken; it holds the loads together ahead of all that waits for one of them.
    if form >= 0:
        draft_lens = load_low(draft_lens_ptr, rows, num_requests, words_of(form, DRAFT_LENS), ABSENT_MAX)
        min_lens = load_low(min_lens_ptr, rows, num_requests, words_of(form, MIN_LENS), 0)
        max_lens = load_low(max_lens_ptr, rows, num_requests, words_of(form, MAX_LENS), ABSENT_MAX)
        log_weights = load_low(log_weights_ptr, rows, num_requests, words_of(form, LOG_WEIGHTS), 0)
    else:
        draft_lens = tl.zeros(rows.shape, tl.int32)
        min_lens = draft_lens
        max_lens = draft_lens
        log_weights = draft_lens
    return draft_lens, min_lens, max_lens, log_weights
