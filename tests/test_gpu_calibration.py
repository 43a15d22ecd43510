"""Calibration on a GPU: no synchronisation, the same as on the CPU. Skipped without a GPU."""

from __future__ import annotations

import pytest
import torch
from calibration_cases import columns, random_rows

from tetris_kernels import Calibration
from tetris_kernels.reference import calibration as reference

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or ROCm GPU here")


def steps(count: int) -> list[dict[str, torch.Tensor]]:
    """On the CPU, with scores in the middle of their bins, where the last bits of a logarithm decide nothing."""
    found = []
    for seed in range(count):
        step = columns(random_rows(seed, 40, 5))
        odds = (reference.log_odds(step["scores"]) * reference.BINS_PER_UNIT).floor() + 0.5
        found.append(step | {"scores": torch.nn.functional.logsigmoid(odds / reference.BINS_PER_UNIT)})
    return found


def test_it_learns_what_it_learns_on_the_cpu_without_waiting():
    here, there = Calibration(5, refit_every=2), Calibration(5, refit_every=2, device="cuda")
    expected, found = [], []
    for step in steps(12):
        here.update(**step, kind="token")
        expected.append(here(step["scores"], kind="token"))
    moved = [{name: value.cuda() for name, value in step.items()} for step in steps(12)]
    there(moved[0]["scores"], kind="token")
    torch.cuda.set_sync_debug_mode("error")
    try:
        for step in moved:
            there.update(**step, kind="token")
            found.append(there(step["scores"], kind="token"))
    finally:
        torch.cuda.set_sync_debug_mode("default")
    counts = [calibration.state_dict()["counts"].cpu() for calibration in (here, there)]
    torch.testing.assert_close(*counts, rtol=1e-12, atol=0)  # halves of integers, by a power of the half-life
    torch.testing.assert_close(there.state_dict()["weights"].cpu(), here.state_dict()["weights"], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(torch.stack(found).cpu(), torch.stack(expected), rtol=1e-5, atol=1e-6)


def test_updates_and_fits_within_a_graph():
    """Captured once, replayed with other outcomes."""
    batches = steps(6)
    here, there = Calibration(5, refit_every=1), Calibration(5, refit_every=1, device="cuda")
    given = {name: value.cuda() for name, value in batches[0].items()}
    untouched = there.state_dict()
    there.update(**given, kind="token")
    there.load_state_dict(untouched)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        there.update(**given, kind="token")
        found = there(given["scores"], kind="token")
    for step in batches:
        here.update(**step, kind="token")
        for name, value in step.items():
            given[name].copy_(value)
        graph.replay()
        expected = here(step["scores"], kind="token")
        torch.testing.assert_close(found.cpu(), expected, rtol=1e-5, atol=1e-6)
