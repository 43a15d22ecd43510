"""Compile catalogue variants for GPUs that are not there, and read what the compilers say of the result."""

from __future__ import annotations

import os
import re
import struct
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
_NOP = 0x918  # the operation that pads a kernel's code


def compile_variant(variant: Variant, target: str, **options: Any) -> Any:
    signature = variant.signature | dict.fromkeys(variant.constexprs, "constexpr")
    # As a launch has it, so that each finds the other's compilation in Triton's cache.
    attributes = {(variant.kernel.arg_names.index(name),): [] for name in variant.constexprs}
    source = ASTSource(variant.kernel, signature, variant.constexprs, attributes)
    return triton.compile(source, target=TARGETS[target], options=variant.options | options)


def resources(compiled: Any) -> dict[str, int]:
    """What a compilation takes: registers (on AMD vgprs and sgprs), spills, shared memory in bytes, instructions.

    Spills are registers or bytes that the compiler moved to memory. Instructions are those of the listing, without
    the padding behind it: how large the code is, not how much of it runs.
    """
    found = _amd_resources(compiled.asm["amdgcn"]) if "amdgcn" in compiled.asm else _nvidia_resources(compiled)
    return found | {"shared": compiled.metadata.shared}


def _amd_resources(assembly: str) -> dict[str, int]:
    counts = dict(re.findall(r"^\s+\.([vs]gpr(?:_spill)?_count):\s*(\d+)", assembly, re.MULTILINE))
    instructions = re.findall(r"^\t(?:s|v|ds|global|buffer|flat|scratch)_\w+", assembly, re.MULTILINE)
    if len(counts) != 4 or not instructions:
        raise ValueError(f"expected four register counts and instructions in the assembly, got {counts}")
    return {
        "vgprs": int(counts["vgpr_count"]),
        "sgprs": int(counts["sgpr_count"]),
        "spills": int(counts["vgpr_spill_count"]) + int(counts["sgpr_spill_count"]),
        "instructions": len(instructions),
    }


def _nvidia_resources(compiled: Any) -> dict[str, int]:
    counts = dict(re.findall(r"\b(REG|STACK|LOCAL):(\d+)", _on_cubin(compiled, "cuobjdump", "--dump-resource-usage")))
    # Counted here, since the disassembler takes half a second; an instruction has 16 bytes, of which the lowest 12 bits
    # are the operation.
    code = _section(compiled.asm["cubin"], f".text.{compiled.metadata.name}")
    operations = [int.from_bytes(code[at : at + 2], "little") & 0xFFF for at in range(0, len(code), 16)]
    if len(counts) != 3 or not operations:
        raise ValueError(f"expected REG, STACK, LOCAL and code in the cubin, got {counts}, {len(code)} bytes")
    return {
        "registers": int(counts["REG"]),
        "spills": int(counts["STACK"]) + int(counts["LOCAL"]),
        "instructions": sum(operation != _NOP for operation in operations),
    }


def _section(elf: bytes, wanted: str) -> bytes:
    """The contents of a section of a 64-bit little-endian ELF file; empty if it has none of this name."""
    (headers,) = struct.unpack_from("<Q", elf, 0x28)
    size, number, index_of_names = struct.unpack_from("<3H", elf, 0x3A)
    sections = [struct.unpack_from("<I20xQQ", elf, headers + size * i) for i in range(number)]
    names = sections[index_of_names][1]
    for name, offset, length in sections:
        if elf[names + name :].startswith(wanted.encode() + b"\0"):
            return elf[offset : offset + length]
    return b""


def disassembly(compiled: Any) -> str:
    """nvdisasm's listing of the cubin, each instruction with its encoding and behind the line of PTX it comes from."""
    return _on_cubin(compiled, "nvdisasm", "--print-code", "--print-instruction-encoding", "--print-line-info-ptx")


def _on_cubin(compiled: Any, tool: str, *options: str) -> str:
    """The output of one of the tools that Triton's wheel carries."""
    path = os.path.join(os.path.dirname(triton.__file__), "backends", "nvidia", "bin", tool)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        return subprocess.run([path, *options, file.name], capture_output=True, text=True, check=True).stdout
