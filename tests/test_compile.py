"""Every catalogue variant compiles for real GPUs, without spills, within the shared memory there is."""

from __future__ import annotations

import os

import pytest

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

import machine_code
import triton
from machine_code import TARGETS

from tetris_kernels.kernels import catalogue

TRITON = tuple(map(int, triton.__version__.split(".")[:2]))
VARIANTS = {variant.name: variant for variant in catalogue.variants()}


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.parametrize("name", VARIANTS)
def test_variant_compiles_without_spills(name, target):
    variant = VARIANTS[name]
    compiled = machine_code.compile_variant(variant, target)
    if TRITON >= (3, 9):  # older compilers allocate registers worse: long rows spill there, which costs time only
        assert machine_code.resources(compiled)["spills"] == 0
    assert compiled.metadata.shared <= machine_code.SHARED_LIMIT[target]
    assert variant.num_warps * TARGETS[target].warp_size <= 1024


def test_the_catalogue_is_small_and_its_names_are_unique():
    assert len(VARIANTS) == len(catalogue.variants()) <= 85


def test_each_variant_says_when_it_is_used():
    assert all(variant.when for variant in VARIANTS.values())


@pytest.mark.parametrize("name", [name for name in VARIANTS if name.startswith("score-and-select")])
def test_scores_are_behind_a_barrier_before_they_are_selected_from(name):
    """Threads read what others stored: the interpreter cannot see that this needs one."""
    code = machine_code.compile_variant(VARIANTS[name], "sm_90").asm["ttgir"]
    behind = code[code.index("tt.store") :]
    assert "barrier" in behind[: behind.index("tt.load")]
