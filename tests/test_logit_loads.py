"""The machine code of the kernels that go over whole rows loads each logit once, 16 bytes at a time where it can."""

from __future__ import annotations

import os
import re

import pytest

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

import machine_code

from tetris_kernels.kernels import catalogue
from tetris_kernels.kernels.vocabulary import CHUNK

BITS = {"float32": 32, "fp32": 32, "float16": 16, "fp16": 16, "bfloat16": 16, "bf16": 16}
VARIANTS = {
    variant.name: variant
    for variant in catalogue.variants()
    if variant.name.startswith(("score-chunk-", "accept-target-", "accept-draft-"))
}


def test_all_types_of_logits_are_here():
    assert len(VARIANTS) == 9


@pytest.mark.parametrize("target", ["sm_80", "sm_90", "sm_100"])
@pytest.mark.parametrize("name", VARIANTS)
def test_each_logit_is_loaded_once(name, target):
    """A thread has its part of a chunk from either of two branches, none of them in a loop."""
    variant = VARIANTS[name]
    bits = BITS[name.rpartition("-")[2]]
    ptx = machine_code.compile_variant(variant, target).asm["ptx"]
    # Logits are what is read to be evicted first; ids, lengths and temperatures are small and stay.
    loads = re.findall(r"\bld\.global\S*evict_first\S*", ptx)
    wide = [load for load in loads if ".v4.b32" in load]
    of_a_thread = CHUNK.value // (32 * variant.num_warps)
    assert len(wide) * 128 == of_a_thread * bits
    assert len(loads) - len(wide) == of_a_thread
    assert all(load.endswith(f".b{bits}") for load in loads if load not in wide)
    assert not any("evict_first" in block for block in looping_blocks(ptx))


def test_loops_are_seen():
    score = next(variant for variant in catalogue.variants() if variant.name == "score")
    assert any(
        "ld.global" in block for block in looping_blocks(machine_code.compile_variant(score, "sm_90").asm["ptx"])
    )


def looping_blocks(ptx: str) -> list[str]:
    """The blocks of a kernel that may run again after they ran."""
    body = ptx[ptx.index("{", ptx.index(".entry")) :]
    pieces = re.split(r"^(\$L_\w+):", body, flags=re.MULTILINE)
    names, blocks = ["", *pieces[1::2]], pieces[::2]
    following = []
    for i, block in enumerate(blocks):
        targets = [names.index(label) for label in re.findall(r"\bbra(?:\.uni)?\s+(\$L_\w+);", block)]
        # A jump without a predicate, or the end, is the last of its block.
        leaves = re.search(r"^\s*(?:bra(?:\.uni)?\s+\$L_\w+|ret);\s*(?:[}/].*)?\Z", block, re.M)
        following.append({*targets, *([i + 1] if not leaves and i + 1 < len(blocks) else [])})
    found = []
    for i, block in enumerate(blocks):
        reached, front = set(), following[i]
        while front:
            reached |= front
            front = set().union(*(following[j] for j in front)) - reached
        if i in reached:
            found.append(block)
    return found
