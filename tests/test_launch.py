"""What calls of select compile and launch, on a driver without a GPU: after warmup nothing compiles any more."""

from __future__ import annotations

import contextlib
import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the launcher", allow_module_level=True)

import fake_gpu
from fake_gpu import FakeDriver, num_compiled

from tetris_kernels.kernels import launching, selection

CPU = torch.device("cpu")


def launch(logprobs, budget=None, host_budget=5, **optional):
    names = ("draft_lens", "min_lens", "max_lens", "log_weights")
    return selection.select(logprobs, budget, host_budget, *(optional.get(name) for name in names))


def calls():
    """Calls that differ in everything that must not compile."""
    for n, k in [(1, 1), (3, 8), (16, 4), (33, 5), (63, 7), (64, 8)]:
        wide = torch.zeros(2 * n, 3 * k + 1)
        strided = (wide[:n, :k], wide[::2, :k], wide[:n, 1 : k + 1], torch.zeros(k, n).T, wide[:1, :1].expand(n, k))
        for logprobs in strided:
            for host_budget in (0, 1, 2, 16, 17, 2**31, 2**40):
                yield logprobs, None, host_budget, {}
            for dtype in (torch.int32, torch.int64):
                lens = torch.zeros(3 * n, dtype=dtype)
                budget = torch.zeros(4, dtype=dtype)
                yield logprobs, budget[1:2], 0, {"draft_lens": lens[:n]}
                yield logprobs, budget[3], 0, {"min_lens": lens[1 : n + 1], "max_lens": lens[::3]}
                yield logprobs, None, 3, {"log_weights": torch.zeros(n), "draft_lens": lens[:1].expand(n)}


def test_nothing_compiles_after_warmup(driver):
    assert selection.warmup(CPU, [torch.float32], 64, 8) == 6  # three buckets, with and without optional tensors
    assert num_compiled() == 6
    launches = len(driver.launches)
    count = 0
    for logprobs, budget, host_budget, optional in calls():
        launch(logprobs, budget, host_budget, **optional)
        count += 1
    assert num_compiled() == 6
    assert len(driver.launches) == launches + count  # one launch a call


def test_warmup_asks_for_every_variant(monkeypatch):
    asked = set()
    monkeypatch.setattr(
        selection, "_launch", lambda shape, x, *rest: asked.add((shape, selection._kind(x.dtype, *rest[-1])))
    )
    count = selection.warmup(CPU, [torch.float32, torch.float16, torch.bfloat16], 4096, 256)
    names = {f"select-{kind}-{shape[0]}x{shape[1]}" for shape, kind in asked}
    assert names == {variant.name for variant in selection.variants()}
    assert count == len(names)


def test_half_precision_needs_one_more_kernel_for_both_types(driver):
    assert selection.warmup(CPU, [torch.bfloat16, torch.float16], 8, 4) == 1
    for dtype in (torch.bfloat16, torch.float16):
        for logprobs in (torch.zeros(5, 4, dtype=dtype), torch.zeros(4, 5, dtype=dtype).T):
            launch(logprobs)
            launch(logprobs, draft_lens=torch.zeros(5, dtype=torch.int32))
    assert num_compiled() == 1


@pytest.mark.parametrize("limits", [(1, 1), (64, 8), (65, 8), (300, 3), (300, 20), (70, 70), (4096, 5), (5000, 2)])
def test_warmup_covers_the_buckets_that_its_limits_reach(monkeypatch, limits):
    launched = []
    monkeypatch.setattr(selection, "_launch", lambda shape, *_: launched.append(shape))
    selection.warmup(CPU, [torch.float32], *limits)
    reached = {selection.bucket(n, k) for n in range(limits[0] + 1) for k in range(limits[1] + 1)}
    assert set(launched) == reached - {None}


def test_tensors_of_a_device_that_is_not_current(monkeypatch):
    """The device is made current around the launch."""
    entered = []

    class Module:
        @staticmethod
        @contextlib.contextmanager
        def device(device):
            entered.append(device)
            yield

    monkeypatch.setattr(torch, "get_device_module", lambda device: Module)
    with launching.on_device(torch.device("cuda:1")):
        assert entered == [torch.device("cuda:1")]
    with launching.on_device(CPU):
        assert len(entered) == 1


def test_strides_beyond_32_bits_reach_the_launcher_whole(driver):
    far = torch.zeros(1).as_strided((1, 1), (2**33, 2**32))
    launch(far)
    _, grid, arguments = driver.launches[-1]
    assert grid == (1, 1, 1)
    assert 2**33 in arguments and 2**32 in arguments


def test_later_launches_are_those_of_the_dispatch():
    """Without Triton's dispatch the launcher gets the same compilation, grid and arguments."""
    calls_of_a_kind = [(torch.zeros(5, 4), {}), (torch.zeros(5, 4), {"draft_lens": torch.zeros(5, dtype=torch.int64)})]
    with fake_gpu.active(FakeDriver(), dispatched=False) as fake:
        for logprobs, optional in calls_of_a_kind * 3:
            launch(logprobs, host_budget=7, **optional)
        assert fake_gpu.num_compiled() == 2
    for kind in (0, 1):
        first, *later = map(of_the_kernel, fake.launches[kind::2])
        assert later == [first] * 2


def of_the_kernel(launched):
    """The compilation, grid and arguments of a launch, without tensors, of which some are fresh in each call."""
    source, grid, (_, _, _, _, *arguments) = launched  # before them: packed metadata, metadata, two hooks
    return source.hash(), grid, [type(value) if isinstance(value, torch.Tensor) else value for value in arguments]


def test_variants_are_what_the_launcher_compiles(driver):
    """The catalogue's signatures, which the compile tests use, are those of real calls."""
    launch(torch.zeros(5, 4))
    launch(torch.zeros(5, 4), draft_lens=torch.zeros(5, dtype=torch.int64))
    launch(torch.zeros(5, 4, dtype=torch.bfloat16))
    named = {v.name: v for v in selection.variants()}
    for (source, _, _), name in zip(driver.launches, ("plain", "full", "half"), strict=True):
        variant = named[f"select-{name}-8x4"]
        runtime = {key: value for key, value in source.signature.items() if key not in variant.constexprs}
        expected = {key: value for key, value in variant.signature.items() if key not in variant.constexprs}
        assert runtime == expected
        constants = {source.fn.arg_names[path[0]]: value for path, value in source.constants.items()}
        assert constants == variant.constexprs
        assert not any(source.attrs.values())  # no specialisation on alignment or divisibility
