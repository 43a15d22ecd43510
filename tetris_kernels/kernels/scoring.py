"""score, and select_from_logits, on Triton: the launches, their variants, and which batches they take."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from tetris_kernels.kernels import loading, score_kernels
from tetris_kernels.kernels.launching import (
    as_float32,
    as_words,
    check_vocabulary,
    is_wide,
    launch,
    num_words,
    on_device,
)
from tetris_kernels.kernels.score_kernels import chunk_kernel, score_and_select_kernel, score_kernel
from tetris_kernels.kernels.variant import Variant
from tetris_kernels.kernels.vocabulary import CHUNK, MAX_VOCABULARY

ROWS = 64  # rows of a program of score_kernel: two warps, since there are few rows and many multiprocessors

# (requests, drafts, warps): the padded shapes of select_from_logits in two launches, the smallest first. More warps
# than select's, since they first read the states.
BUCKETS = ((64, 8, 8), (64, 16, 8), (256, 8, 8))
# What one program of these reads at most, 128 KiB: about when another launch takes as long. Estimated, not measured.
MAX_STATES = 16384

KINDS = {name: getattr(score_kernels, name.upper()).value for name in ("token", "top", "collision")}
DTYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16"}

_TEMPERATURE = {"temperature_ptr": "*fp32", "host_temperature": "fp32"}
_CHUNK_SIGNATURE = {
    "logits_ptr": "*fp32",
    "stride_n": "i64",
    "stride_k": "i64",
    "stride_v": "i64",
    "ids_ptr": "*i32",
    "ids_stride_n": "i64",
    "ids_stride_k": "i64",
    **_TEMPERATURE,
    "draft_lens_ptr": "*i32",
    "states_ptr": "*fp32",
    **dict.fromkeys(("num_requests", "num_drafts", "vocabulary", "form"), "i32"),
}
_SIZES = dict.fromkeys(("num_requests", "num_drafts", "num_chunks", "form"), "i32")
_SCORE_SIGNATURE = {"states_ptr": "*fp32", **_TEMPERATURE, "draft_lens_ptr": "*i32", "scores_ptr": "*fp32", **_SIZES}
_PREFERENCES = {
    "draft_lens_ptr": loading.DRAFT_LENS.value,
    "min_lens_ptr": loading.MIN_LENS.value,
    "max_lens_ptr": loading.MAX_LENS.value,
    "log_weights_ptr": loading.LOG_WEIGHTS.value,
}
_SELECT_SIGNATURE = {
    "states_ptr": "*fp32",
    **_TEMPERATURE,
    "scores_ptr": "*fp32",
    "budget_ptr": "*i32",
    "host_budget": "i32",
    **dict.fromkeys((*_PREFERENCES, "lens_ptr", "cu_lens_ptr"), "*i32"),
    **_SIZES,
}


def fits(vocabulary: int) -> bool:
    """Whether the kernels take a vocabulary of this size."""
    return vocabulary <= MAX_VOCABULARY


def fuses(num_requests: int, num_drafts: int, vocabulary: int) -> bool:
    """Whether `select_from_logits` here takes a batch of this shape."""
    states = num_requests * num_drafts * _num_chunks(vocabulary)
    return fits(vocabulary) and 0 < states <= MAX_STATES and bool(_buckets(num_requests, num_drafts))


def variants() -> Iterator[Variant]:
    """Every compilation of the kernels that a call can ask for."""
    for dtype in DTYPES:
        yield _chunk_variant(dtype)
    yield _score_variant()
    for shape in BUCKETS:
        yield _select_variant(shape)


@functools.cache
def _chunk_variant(dtype: torch.dtype) -> Variant:
    return Variant(
        name=f"score-chunk-{DTYPES[dtype]}",
        kernel=chunk_kernel,
        signature=_CHUNK_SIGNATURE | {"logits_ptr": f"*{DTYPES[dtype]}"},
        constexprs={},
        num_warps=4,
        when=f"{dtype} draft logits",
    )


@functools.cache
def _score_variant() -> Variant:
    return Variant(
        name="score",
        kernel=score_kernel,
        signature=_SCORE_SIGNATURE,
        constexprs={"ROWS": ROWS},
        num_warps=ROWS // 32,
        when="score, and select_from_logits in three launches",
    )


@functools.cache
def _select_variant(shape: tuple[int, int, int]) -> Variant:
    n_pad, k_pad, num_warps = shape
    return Variant(
        name=f"score-and-select-{n_pad}x{k_pad}",
        kernel=score_and_select_kernel,
        signature=_SELECT_SIGNATURE,
        constexprs={"N_PAD": n_pad, "K_PAD": k_pad},
        num_warps=num_warps,
        when=f"select_from_logits in two launches; up to {n_pad} requests of up to {k_pad} drafts",
    )


def score(
    draft_logits: Tensor,
    draft_ids: Tensor,
    kind: str,
    temperature: Tensor | None,
    host_temperature: float,
    draft_lens: Tensor | None,
) -> Tensor:
    """`tetris_kernels.score` on checked arguments.

    Two launches; a per-request tensor that is not contiguous costs a copy.
    """
    check_vocabulary(draft_logits.shape[2])
    scores = draft_logits.new_empty(draft_logits.shape[:2], dtype=torch.float32)
    if scores.numel() == 0:
        return scores
    with on_device(draft_logits.device):
        states, temperatures, lens, form = _launch_chunks(
            draft_logits, draft_ids, kind, temperature, host_temperature, draft_lens
        )
        launch(
            _score_variant(),
            -(-scores.numel() // ROWS),
            states,
            *temperatures,
            lens,
            scores,
            *scores.shape,
            _num_chunks(draft_logits.shape[2]),
            form,
        )
    return scores


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
) -> tuple[Tensor, Tensor, Tensor]:
    """`tetris_kernels.select_from_logits` on checked arguments that it `fuses`, returning (lens, cu_lens, scores).

    Two launches; a per-request tensor that is not contiguous costs a copy.
    """
    shape = _buckets(*draft_logits.shape[:2])[0]
    logits = (draft_logits, draft_ids, kind, temperature, host_temperature)
    return _launch_select(shape, logits, budget, host_budget, (draft_lens, min_lens, max_lens, log_weights))


def warmup(device: torch.device, dtypes: Collection[torch.dtype], max_requests: int, max_drafts: int) -> int:
    """Compile and load every variant that such batches can ask for, by launching it on a single draft."""
    sizes = itertools.product({b[0] for b in BUCKETS} | {max_requests}, {b[1] for b in BUCKETS} | {max_drafts})
    reached = {shape for n, k in sizes if 0 < n <= max_requests and 0 < k <= max_drafts for shape in _buckets(n, k)[:1]}
    if not dtypes or min(max_requests, max_drafts) == 0:
        return 0
    ids = torch.zeros((1, 1), dtype=torch.int32, device=device)
    for dtype in dtypes:
        logits = torch.zeros((1, 1, 1), dtype=dtype, device=device)
        score(logits, ids, "token", None, 1.0, None)
    for shape in reached:
        _launch_select(shape, (logits, ids, "token", None, 1.0), None, 0, (None,) * 4)
    return len(set(dtypes)) + 1 + len(reached)


def _launch_chunks(
    draft_logits: Tensor,
    draft_ids: Tensor,
    kind: str,
    temperature: Tensor | None,
    host_temperature: float,
    draft_lens: Tensor | None,
) -> tuple[Tensor, tuple[Tensor, float], Tensor, int]:
    """The states of all chunks, and what the next launch takes too: temperatures, draft_lens, `form`."""
    num_requests, num_drafts, vocabulary = draft_logits.shape
    num_rows, num_chunks = num_requests * num_drafts, _num_chunks(vocabulary)
    planes = 3 * num_chunks if kind == "collision" else 2 * num_chunks + 1
    states = draft_logits.new_empty((planes, num_rows), dtype=torch.float32)

    temperatures = (states, as_float32(host_temperature))
    if temperature is not None:
        temperatures = (temperature.contiguous(), 1.0)
    ids = as_words(draft_ids.as_strided((1,), (1,)))
    # An absent tensor is something of its type to point to; the bits say that it is not there.
    lens = ids if draft_lens is None else as_words(draft_lens)
    form = KINDS[kind] << score_kernels.KIND.value | score_kernels.ALIGNED.value * is_wide(draft_logits)
    form |= num_words(draft_lens) << loading.DRAFT_LENS.value
    form |= num_words(draft_ids) << score_kernels.DRAFT_IDS.value
    form |= num_words(temperature) << score_kernels.TEMPERATURE.value

    launch(
        _chunk_variant(draft_logits.dtype),
        num_rows * num_chunks,
        draft_logits,
        *draft_logits.stride(),
        ids,
        draft_ids.stride(0) * num_words(draft_ids),
        draft_ids.stride(1) * num_words(draft_ids),
        *temperatures,
        lens,
        states,
        num_requests,
        num_drafts,
        vocabulary,
        form,
    )
    return states, temperatures, lens, form


def _launch_select(
    shape: tuple[int, int, int],
    logits: tuple[Tensor, Tensor, str, Tensor | None, float],
    budget: Tensor | None,
    host_budget: int,
    preferences: tuple[Tensor | None, ...],
) -> tuple[Tensor, Tensor, Tensor]:
    num_requests, num_drafts, vocabulary = logits[0].shape
    lens = logits[0].new_empty(num_requests, dtype=torch.int32)
    cu_lens = logits[0].new_empty(num_requests + 1, dtype=torch.int32)
    scores = logits[0].new_empty((num_requests, num_drafts), dtype=torch.float32)
    with on_device(scores.device):
        states, temperatures, _, form = _launch_chunks(*logits, preferences[0])
        form |= num_words(budget) << loading.BUDGET.value
        form |= loading.PACKED.value * (num_drafts % 4 == 0 and scores.data_ptr() % 16 == 0)
        for field, values in zip(_PREFERENCES.values(), preferences, strict=True):
            form |= num_words(values) << field
        launch(
            _select_variant(shape),
            1,
            states,
            *temperatures,
            scores,
            lens if budget is None else as_words(budget),
            min(host_budget, num_requests * num_drafts) if budget is None else 0,
            *(lens if values is None else as_words(values) for values in preferences),
            lens,
            cu_lens,
            num_requests,
            num_drafts,
            _num_chunks(vocabulary),
            form,
        )
    return lens, cu_lens, scores


def _buckets(num_requests: int, num_drafts: int) -> list[tuple[int, int, int]]:
    """The buckets that hold the batch, the smallest first."""
    return [shape for shape in BUCKETS if num_requests <= shape[0] and num_drafts <= shape[1]]


def _num_chunks(vocabulary: int) -> int:
    return -(-vocabulary // int(CHUNK.value))
