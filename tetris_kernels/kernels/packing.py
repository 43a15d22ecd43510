"""pack in one launch of several programs: variants and the launch."""

from __future__ import annotations

import functools
from collections.abc import Collection, Iterator

import torch
from torch import Tensor

from tetris_kernels.kernels import pack_kernel as device_code
from tetris_kernels.kernels.launching import as_words, launch, num_words, on_device
from tetris_kernels.kernels.pack_kernel import pack_kernel
from tetris_kernels.kernels.variant import Variant

_POINTERS = {torch.int32: "*i32", torch.int64: "*i64"}
_SIGNATURE = {
    "lens_ptr": "*i32",
    "draft_ids_ptr": "",
    "stride_n": "i64",
    "stride_k": "i64",
    "anchor_ids_ptr": "",
    "context_lens_ptr": "*i32",
    "draft_lens_ptr": "*i32",
    "input_ids_ptr": "*i64",
    "position_ids_ptr": "*i64",
    "request_ids_ptr": "*i32",
    "cu_seqlens_ptr": "*i32",
    "packed_lens_ptr": "*i32",
    "available_ptr": "*i32",
    "overflow_ptr": "*u1",
    "num_requests": "i32",
    "num_drafts": "i32",
    "capacity": "i32",
    "pad_id": "i64",
    "form": "i32",
}


def fits() -> bool:
    """Any batch is taken: more requests and slots are more programs."""
    return True


def variants() -> Iterator[Variant]:
    """Every compilation of the kernel that a call can ask for."""
    for dtype in _POINTERS:
        yield _variant(dtype)


@functools.cache
def _variant(dtype: torch.dtype) -> Variant:
    name = str(dtype).removeprefix("torch.")
    return Variant(
        name=f"pack-{name}",
        kernel=pack_kernel,
        signature=_SIGNATURE | dict.fromkeys(("draft_ids_ptr", "anchor_ids_ptr"), _POINTERS[dtype]),
        constexprs={},
        num_warps=8,
        when=f"{name} draft_ids and anchor_ids; any batch",
    )


def warmup(device: torch.device, dtypes: Collection[torch.dtype], max_requests: int, max_drafts: int) -> int:
    """Compile and load every variant, by packing an empty batch: they serve all dtypes of logits and all sizes."""
    lens = torch.empty(0, dtype=torch.int32, device=device)
    for dtype in _POINTERS:
        ids = torch.empty((0, 1), dtype=dtype, device=device)
        pack(lens, ids, ids[:, 0], lens, 0, None, 0)
    return len(_POINTERS)


def pack(
    lens: Tensor,
    draft_ids: Tensor,
    anchor_ids: Tensor,
    context_lens: Tensor,
    capacity: int,
    draft_lens: Tensor | None,
    pad_id: int,
) -> tuple[Tensor, ...]:
    """`tetris_kernels.pack` on checked arguments, returning the fields of a PackedBatch.

    One launch; a per-request tensor that is not contiguous costs a copy.
    """
    num_requests, num_drafts = draft_ids.shape
    input_ids, position_ids = (lens.new_empty(capacity, dtype=torch.int64) for _ in range(2))
    request_ids = lens.new_empty(capacity, dtype=torch.int32)
    cu_seqlens = lens.new_empty(num_requests + 1, dtype=torch.int32)
    packed_lens, available = (lens.new_empty(num_requests, dtype=torch.int32) for _ in range(2))
    overflow = lens.new_empty((), dtype=torch.bool)

    form = num_words(context_lens) << device_code.CONTEXT_LENS.value
    form |= num_words(draft_lens) << device_code.DRAFT_LENS.value
    with on_device(draft_ids.device):
        launch(
            _variant(draft_ids.dtype),
            _num_programs(num_requests, capacity),
            lens.contiguous(),
            draft_ids,
            draft_ids.stride(0),
            draft_ids.stride(1),
            anchor_ids.contiguous(),
            as_words(context_lens),
            lens if draft_lens is None else as_words(draft_lens),
            input_ids,
            position_ids,
            request_ids,
            cu_seqlens,
            packed_lens,
            available,
            overflow,
            num_requests,
            num_drafts,
            capacity,
            pad_id,
            form,
        )
    return input_ids, position_ids, request_ids, cu_seqlens, packed_lens, available, overflow


def _num_programs(num_requests: int, capacity: int) -> int:
    """Enough for a block of requests each and a block of slots each; at least the one that says what overflows."""
    requests: int = device_code.REQUESTS.value
    slots: int = device_code.SLOTS.value
    return max(-(-num_requests // requests), -(-capacity // slots), 1)
