"""What `accept` compiles and launches, on a driver without a GPU: after warmup nothing compiles any more."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the launcher", allow_module_level=True)

import triton
from acceptance_cases import DTYPES, Case, batch
from fake_gpu import FakeDriver

from tetris_kernels.kernels import acceptance

CPU = torch.device("cpu")
KERNELS = {id(variant.kernel): variant.kernel for variant in acceptance.variants()}.values()


@pytest.fixture
def driver() -> Iterator[FakeDriver]:
    """The launcher takes CPU tensors here: their pointers only travel to a launch that does nothing."""
    fake = FakeDriver()
    triton.runtime.driver.set_active(fake)
    for kernel in KERNELS:
        kernel.device_caches.clear()
    yield fake
    for kernel in KERNELS:
        kernel.device_caches.clear()
    triton.runtime.driver._active = None


def compiled_kernels() -> int:
    return sum(len(cache[0]) for kernel in KERNELS for cache in kernel.device_caches.values())


def launch(case: Case) -> tuple[torch.Tensor, ...]:
    packed, heat = case.packed(), case.temperature
    layout = (packed.request_ids, packed.cu_seqlens, packed.lens, packed.draft_lens)
    device_heat, host_heat = (heat, 1.0) if isinstance(heat, torch.Tensor) else (None, heat)
    coupled = case.bonus == "coupled"
    return acceptance.accept(case.target, *layout, case.ids, case.uniforms, case.draft, device_heat, host_heat, coupled)


def cases() -> Iterator[Case]:
    """Calls that differ in everything that must not compile."""
    for n, k, vocabulary in [(1, 1, 1), (1, 0, 16), (3, 8, 40), (16, 4, 304), (5, 31, 33), (2, 16, 9000)]:
        for temperature in (0.0, 1.0, 0.7, torch.ones(3 * n)[:n], torch.ones(3 * n)[::3], torch.ones(1).expand(n)):
            for full in (False, True):
                case = batch("", n, k, vocabulary, n, full, temperature=temperature, bonus=("coupled", "direct")[n % 2])
                yield case
                yield Case("", case.target.T.contiguous().T, case.lens, case.ids.long(), case.uniforms, case.draft)


def test_nothing_compiles_after_warmup(driver: FakeDriver) -> None:
    assert acceptance.warmup(CPU, [torch.float32], 64, 31) == compiled_kernels() == 7
    for case in cases():
        launch(case)
    assert compiled_kernels() == 7


def test_warmup_asks_for_the_whole_catalogue(driver: FakeDriver) -> None:
    names = [variant.name for variant in acceptance.variants()]
    assert acceptance.warmup(CPU, DTYPES, 64, 256) == len(names) == len(set(names)) == compiled_kernels()
    assert acceptance.warmup(CPU, [], 64, 256) == 0


@pytest.mark.parametrize(
    ("temperature", "full", "launches"), [(0.0, False, 2), (0.0, True, 2), (1.0, False, 3), (1.0, True, 5)]
)
def test_launches(temperature: float, full: bool, launches: int, driver: FakeDriver) -> None:
    launch(batch("", 4, 3, 9000, 1, full, temperature=temperature))
    assert len(driver.launches) == launches


def test_grids_depend_on_shapes_alone(driver: FakeDriver) -> None:
    for seed in range(3):
        driver.launches.clear()
        case = batch("", 4, 3, 9000, seed, True, lens=(3, 3, 1, 0))
        launch(case)
        grids = [grid for _, grid, _ in driver.launches]
        assert grids == [(2 * 12, 1, 1), (2 * 12, 1, 1), (4, 1, 1), (2 * 4, 1, 1), (4, 1, 1)]


@pytest.mark.parametrize("target", DTYPES, ids=str)
@pytest.mark.parametrize("draft", [None, *DTYPES], ids=str)
@pytest.mark.parametrize("k", [3, 32])
def test_variants_are_what_the_launcher_compiles(
    target: torch.dtype, draft: torch.dtype | None, k: int, driver: FakeDriver
) -> None:
    """The catalogue's signatures, which the compile tests use, are those of real calls."""
    case = batch("", 2, k, 16, 1, draft is not None)
    draft_logits = None if draft is None or case.draft is None else case.draft.to(draft)
    launch(Case("", case.target.to(target), case.lens, case.ids, case.uniforms, draft_logits))
    needed = acceptance._needed(target, draft, k).values()
    named = {variant.name for variant in acceptance.variants()}
    for (source, _, _), variant in zip(driver.launches, needed, strict=True):
        assert variant.name in named and source.fn is variant.kernel
        expected = {name: kind for name, kind in variant.signature.items() if name not in variant.constexprs}
        assert {name: kind for name, kind in source.signature.items() if name not in variant.constexprs} == expected
        constants = {source.fn.arg_names[path[0]]: value for path, value in source.constants.items()}
        assert constants == variant.constexprs
        assert not any(source.attrs.values())  # no specialisation on alignment or divisibility


def test_strides_beyond_32_bits_reach_the_launcher_whole(driver: FakeDriver) -> None:
    far: Any = torch.zeros(1).as_strided((1, 1), (2**33, 2**32))
    draft = torch.zeros(1).as_strided((1, 1, 1), (2**35, 2**34, 2**36))
    launch(Case("", far, (0,), torch.zeros(1, 1, dtype=torch.int32), torch.zeros(1, 2), draft))
    for which, strides in enumerate([(2**33, 2**32), (2**35, 2**34, 2**36), (), (2**33, 2**35, 2**34), (2**33, 2**36)]):
        assert set(strides) <= set(driver.launches[which][2])


def test_wide_means_aligned_pieces_of_16_bytes() -> None:
    rows = torch.zeros(4, 6, 64)
    wide = [rows, rows[:, ::2], rows[..., 8:40], rows[..., :0], rows[0].expand(4, 6, 64), rows.half()[..., 8:16]]
    narrow = [
        rows[..., 1:33],
        rows[..., :63],
        rows[..., ::2],
        rows.mT,
        rows.half()[..., 4:12],
        rows.bfloat16()[..., :4],
    ]
    assert all(acceptance._is_wide(x) for x in wide)
    assert not any(acceptance._is_wide(x) for x in narrow)
    odd = torch.zeros(4, 65)[:, :64]
    assert not acceptance._is_wide(odd)
