"""Compile catalogue variants for GPUs that are not there, and read what the compilers say of the result."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from typing import Any

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from tetris_kernels.kernels.variant import Variant

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
    "gfx1100": GPUTarget("hip", "gfx1100", 32),
}
# Bytes of shared memory a program may have; Triton compiles beyond it without a word.
SHARED_LIMIT = {"sm_80": 163 << 10, "sm_90": 227 << 10, "sm_100": 227 << 10, "gfx942": 64 << 10, "gfx1100": 64 << 10}


def compile_variant(variant: Variant, target: str) -> Any:
    signature = variant.signature | dict.fromkeys(variant.constexprs, "constexpr")
    # As a launch has it, so that each finds the other's compilation in Triton's cache.
    attributes = {(variant.kernel.arg_names.index(name),): [] for name in variant.constexprs}
    source = ASTSource(variant.kernel, signature, variant.constexprs, attributes)
    return triton.compile(source, target=TARGETS[target], options=variant.options)


def spilled(compiled: Any) -> int:
    """Registers or bytes that the compiler moved to memory."""
    if "amdgcn" in compiled.asm:
        counts = re.findall(r"\.(?:vgpr|sgpr)_spill_count:\s*(\d+)", compiled.asm["amdgcn"])
    else:
        counts = re.findall(r"\b(?:STACK|LOCAL):(\d+)", _resource_usage(compiled.asm["cubin"]))
    if len(counts) < 2:
        raise ValueError("expected two spill counts in the compiler's output, got " + str(counts))
    return sum(map(int, counts))


def _resource_usage(cubin: bytes) -> str:
    cuobjdump = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin", "cuobjdump")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [cuobjdump, "--dump-resource-usage", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
