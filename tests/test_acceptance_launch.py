"""What `accept` launches, on a driver without a GPU; see also test_launch_stages.py."""

from __future__ import annotations

import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the launcher", allow_module_level=True)

from acceptance_cases import DTYPES, Case, batch
from fake_gpu import FakeDriver

from tetris_kernels.kernels import acceptance, launching

CPU = torch.device("cpu")


def launch(case: Case) -> tuple[torch.Tensor, ...]:
    packed, heat = case.packed(), case.temperature
    layout = (packed.request_ids, packed.cu_seqlens, packed.lens, packed.draft_lens)
    device_heat, host_heat = (heat, 1.0) if isinstance(heat, torch.Tensor) else (None, heat)
    coupled = case.bonus == "coupled"
    return acceptance.accept(case.target, *layout, case.ids, case.uniforms, case.draft, device_heat, host_heat, coupled)


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
    assert all(launching.is_wide(x) for x in wide)
    assert not any(launching.is_wide(x) for x in narrow)
    odd = torch.zeros(4, 65)[:, :64]
    assert not launching.is_wide(odd)
