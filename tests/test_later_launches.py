"""Launches after a variant's first, which leave out Triton's dispatch: they run the same, and survive its detours."""

from __future__ import annotations

import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the launcher", allow_module_level=True)

import fake_gpu
import kernel_calls
import triton
from kernel_calls import tensors
from ptx import driver

from tetris_kernels.kernels import selection

CALLS = {name: call for call in kernel_calls.calls() for name in call.variants}


@pytest.mark.parametrize(
    "name",
    ["select-plain-32x8", "select-full-64x8", "select-half-64x8", "score", "score-and-select-64x8", "pack-int64"]
    + ["expect-64x8", "choose-budget", "accept-decide-onehot-32", "accept-decide-full-32", "accept-residual-half-half"],
)
def test_a_call_gives_the_same_again(name):
    """By executed PTX: of other kernels or arguments the results would be others."""
    arguments = CALLS[name].arguments()
    with driver.active(90, dispatched=False) as device, device.reading(tensors(arguments)):
        first, again = (CALLS[name].function(**arguments, backend="triton") for _ in range(2))
    launches = [launched for launched, _ in device.counts]
    assert name in launches and launches[: len(launches) // 2] == launches[len(launches) // 2 :]
    assert all(a.data_ptr() != b.data_ptr() for a, b in zip(tensors(first), tensors(again), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(tensors(first), tensors(again), strict=True))


@pytest.fixture
def fake():
    with fake_gpu.active(fake_gpu.FakeDriver(), dispatched=False) as active:
        yield active


def launch():
    selection.select(torch.zeros(5, 4), None, 7, None, None, None, None)


def test_a_hook_that_stops_a_compilation_stops_one_launch(fake, monkeypatch):
    monkeypatch.setattr(triton.knobs.runtime, "jit_cache_hook", lambda **_: True)
    launch()
    assert fake.launches == []
    monkeypatch.setattr(triton.knobs.runtime, "jit_cache_hook", None)
    launch()
    launch()
    assert len(fake.launches) == 2


def test_launches_outlive_asynchronous_compilation(fake):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool, triton.AsyncCompileMode(pool):
        launch()
    launch()
    launch()
    assert len(fake.launches) >= 2


def test_the_driver_is_given_back_after_an_error():
    before = triton.runtime.driver._active
    with pytest.raises(ZeroDivisionError), fake_gpu.active(fake_gpu.FakeDriver()):
        raise ZeroDivisionError
    assert triton.runtime.driver._active is before
