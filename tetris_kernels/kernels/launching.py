"""What the launchers share: tensors as kernels take them, the device that a launch is on, and the launch."""

from __future__ import annotations

import contextlib

import torch
import triton
from torch import Tensor
from triton.compiler import CompiledKernel

from tetris_kernels.kernels.variant import Variant
from tetris_kernels.kernels.vocabulary import MAX_SCALE, MAX_VOCABULARY, MIN_SCALE


def launch(variant: Variant, programs: int, *arguments: object) -> None:
    """Launch a variant on the current device; arguments: all of its kernel's but its `sizes`, the last.

    Only the first launch on a device goes by Triton's dispatch, which looks for the compilation that the arguments
    ask for and costs the host several times as much as the launch itself: a variant has just one.
    """
    if not isinstance(variant.kernel, triton.JITFunction):  # the interpreter
        variant.kernel[(programs,)](*arguments, **variant.sizes, **variant.options)
        return
    device = triton.runtime.driver.active.get_current_device()
    if device in variant.loaded:
        variant.loaded[device][(programs, 1, 1)](*arguments, *variant.sizes.values())
        return
    compiled = variant.kernel[(programs,)](*arguments, **variant.sizes, **variant.options)
    # Hooks and asynchronous compilation return something else, or nothing: then the next launch asks again.
    if isinstance(compiled, CompiledKernel):
        variant.loaded[device] = compiled


def num_words(values: Tensor | None) -> int:
    """32-bit words of an element; 0 for an absent tensor."""
    return 0 if values is None else values.element_size() // 4


def as_words(values: Tensor) -> Tensor:
    """The 32-bit words of a tensor, so that one compilation takes int32, int64 and float32."""
    # A contiguous tensor of one element may have any stride, which the view of another size refuses.
    return values.contiguous().as_strided((values.numel(),), (1,)).view(torch.int32)


def is_packed(draft_logprobs: Tensor) -> bool:
    """Whether every four drafts of a row [N, K] are one aligned piece of memory."""
    return (
        draft_logprobs.shape[1] % 4 == 0
        and draft_logprobs.stride(1) == 1
        and draft_logprobs.stride(0) % 4 == 0
        and draft_logprobs.data_ptr() % (4 * draft_logprobs.element_size()) == 0
    )


def is_wide(logits: Tensor) -> bool:
    """Whether each row [..., V] is whole aligned pieces of 16 bytes, side by side."""
    piece = 16 // logits.element_size()
    return (
        logits.stride(-1) == 1
        and logits.shape[-1] % piece == 0
        and all(stride % piece == 0 for stride in logits.stride()[:-1])
        and logits.data_ptr() % 16 == 0
    )


def as_float32(temperature: float) -> float:
    """A host temperature that stays above 0 if it is, though float32 would round it; the kernels clamp as closely."""
    return min(max(temperature, float(MIN_SCALE.value)), float(MAX_SCALE.value)) if temperature > 0 else 0.0


def check_vocabulary(vocabulary: int) -> None:
    if vocabulary > MAX_VOCABULARY:
        raise ValueError(
            f"backend 'triton': expected a vocabulary of up to {MAX_VOCABULARY} tokens, got {vocabulary}; "
            "'auto' and 'torch' take it"
        )


def on_device(device: torch.device) -> contextlib.AbstractContextManager[object]:
    """Triton launches on the current device and its current stream: make it the tensor's."""
    return contextlib.nullcontext() if device.type == "cpu" else torch.get_device_module(device).device(device)
