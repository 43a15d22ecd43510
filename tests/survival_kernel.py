"""A kernel of survival alone: launched, or compiled and executed as PTX."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from tetris_kernels.kernels.expect_kernel import survival

BLOCK = 8192


@triton.jit
def kernel(costs_ptr, survivals_ptr, length, SIZE: tl.constexpr):
    i = tl.program_id(0) * SIZE + tl.arange(0, SIZE)
    tl.store(survivals_ptr + i, survival(tl.load(costs_ptr + i, mask=i < length, other=0)), mask=i < length)


def survivals(costs: Tensor) -> Tensor:
    """Of int32 costs, as launched here."""
    found = torch.empty_like(costs)
    kernel[(-(-len(costs) // BLOCK),)](costs, found, len(costs), SIZE=BLOCK)
    return found


def executed(costs: Tensor, capability: int) -> Tensor:
    """Of int32 costs on the CPU, as compiled for a GPU and executed as PTX."""
    from ptx import launch
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature = {"costs_ptr": "*i32", "survivals_ptr": "*i32", "length": "i32", "SIZE": "constexpr"}
    source = ASTSource(kernel, signature, {"SIZE": BLOCK})
    compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": 32})
    found = torch.empty_like(costs)
    launch.execute(compiled, (-(-len(costs) // BLOCK),), [costs.numpy(), found.numpy(), len(costs)])
    return found
