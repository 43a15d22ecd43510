"""The replay of real kernels comes to as many barriers as their execution, and knows where ptxas put each branch."""

from __future__ import annotations

import os

import pytest

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

import kernel_calls
import machine_code
from ptx import cycles, driver, sass

from tetris_kernels.kernels import catalogue

VARIANTS = {variant.name: variant for variant in catalogue.variants()}
CALLS = {name: call for call in kernel_calls.calls() for name in call.variants}


def test_each_variant_is_in_one_call():
    named = [name for call in kernel_calls.calls() for name in call.variants]
    assert sorted(named) == sorted(VARIANTS)


def test_smooth_logprobs():
    logprobs = kernel_calls.smooth_logprobs(1024, 16)
    assert logprobs.max() <= 0
    assert abs(logprobs.mean() + 0.5) < 0.02


@pytest.mark.parametrize(
    "name",
    ["select-plain-64x8", "select-full-64x8", "select-half-64x16", "select-plain-64x32", "select-full-256x8", "score"]
    + ["expect-64x8", "expect-256x16", "pack-int64", "accept-decide-full-32", "accept-residual-half-half"]
    + ["accept-draw-single-onehot"],
)
def test_replay_meets_the_barriers_of_the_execution(name):
    """Every program of these launches has the same number of them."""
    arguments = CALLS[name].arguments()
    with driver.active(90) as device, device.reading(kernel_calls.tensors(arguments)):
        CALLS[name].function(**arguments, backend="triton")
    (counts,) = (counts for launched, counts in device.counts if launched == name)
    compiled = machine_code.compile_variant(VARIANTS[name], "sm_90")
    walker = sass.Walker(sass.parse(machine_code.disassembly(compiled)), compiled.asm["ptx"])
    warps = [walker.walk(outcomes) for outcomes in counts.outcomes]
    assert len(warps) == VARIANTS[name].num_warps
    assert {cycles.barriers(issues) * device.executed[name] for issues in warps} == {counts.barriers}
    # A program is no faster than its slowest warp by itself, nor faster than its schedulers issue.
    issued = sum(map(len, warps))
    assert cycles.together(warps) >= max(max(map(cycles.alone, warps)) - 1, issued / cycles.SCHEDULERS)
