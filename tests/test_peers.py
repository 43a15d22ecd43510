"""The benchmark's peers: right on every input, in the interpreter and compiled; and no number behind a red gate."""

from __future__ import annotations

import dataclasses
import importlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from cases import INF, NAN, certain, coarse, far, lens, peaked
from conftest import INTERPRETED

from bench import gate, inputs
from bench.inputs import Input
from bench.peers import catalogue, cpp
from bench.peers.peer import Peer, Unavailable

ROOT = Path(__file__).resolve().parent.parent
TRITON = ("all-pairs rank", "one-program sort")
ON_CPU = [peer for peer in catalogue.PEERS if "cpu" in peer.devices]
SHAPES = ((8, 4), (64, 8), (5, 3))
GRID = list(inputs.grid(SHAPES, (0.5,) if INTERPRETED else inputs.FRACTIONS))


def here(name: str, device: str = "cpu") -> Peer:
    """A Triton peer that takes the tensors of this session: the interpreter's are on the CPU."""
    return dataclasses.replace(catalogue.by_name(name), devices=frozenset({device}))


def loaded(peer: Peer) -> Peer:
    try:
        _ = peer.select
    except Unavailable as reason:
        pytest.skip(str(reason))
    return peer


def hard_batches() -> list[Input]:
    """What the grid has not: special values, keys beyond 2^24, covering and empty budgets, lens beyond their ends."""
    special = torch.tensor([NAN, INF, -INF, 0.0, -0.0, 1.5, -64.0, -1e30]).repeat(3, 1)
    ragged = lens([3, 0, 5, 1, 0, 2, 5])
    batches = [
        ("special values", special, None),
        ("far", far(4, 7, never=5), None),
        ("ragged", certain(7, 5), ragged),
        ("poison beyond the lens", torch.where(torch.arange(5) < ragged[:, None], peaked(7, 5), NAN), ragged),
        ("all rows empty", peaked(4, 3), lens([0] * 4)),
        ("extreme lens", coarse(4, 4), lens([9, -9, 2**31 - 1, -(2**31)])),
        ("one request", peaked(1, 9), None),
        ("one draft each", certain(63, 1), None),
        ("long rows", certain(3, 200), None),
    ]
    return [
        Input("coarse", 0.0, 0, logprobs, budget, draft_lens)
        for _, logprobs, draft_lens in batches
        for budget in (0, 1, logprobs.numel() // 2, logprobs.numel(), logprobs.numel() + 5)
    ]


@pytest.mark.parametrize("peer", ON_CPU, ids=str)
def test_peers_on_the_cpu(peer: Peer) -> None:
    verdicts = gate.check([loaded(peer)], GRID)
    assert len(verdicts) == len(GRID)
    assert [verdict for verdict in verdicts if verdict.red] == []
    assert not peer.exact or not any(verdict.differ for verdict in verdicts)


@pytest.mark.parametrize("peer", [peer for peer in ON_CPU if peer.exact], ids=str)
def test_exact_peers_on_hard_batches(peer: Peer) -> None:
    assert [verdict for verdict in gate.check([loaded(peer)], hard_batches()) if verdict.red] == []


@pytest.mark.parametrize("peer", catalogue.OURS[:1], ids=str)
def test_ours_in_the_same_form(peer: Peer) -> None:
    assert [verdict for verdict in gate.check([peer], GRID + hard_batches()) if verdict.red] == []


@pytest.mark.parametrize("name", TRITON)
def test_triton_peers(name: str, triton_target) -> None:
    peer = here(name, triton_target.device)
    batches = GRID + hard_batches()[:: 3 if INTERPRETED else 1]
    verdicts = gate.check([peer], batches, triton_target.device)
    assert len(verdicts) == len(batches)
    assert [verdict for verdict in verdicts if verdict.red] == []


@pytest.fixture
def kernels(driver) -> Iterator[list[Any]]:
    """The Triton peers' kernels, without compilations for this driver before and after."""
    modules = [importlib.import_module(f"bench.peers.{name}") for name in ("all_pairs_rank", "sort_triton")]
    found = [value for module in modules for value in vars(module).values() if hasattr(value, "device_caches")]
    for kernel in found:
        kernel.device_caches.clear()
    yield found
    for kernel in found:
        kernel.device_caches.clear()


@pytest.mark.skipif(INTERPRETED, reason="the interpreter replaces the compiler")
@pytest.mark.parametrize("draft_lens", [None, lens([3] * 64)], ids=["full", "ragged"])
@pytest.mark.parametrize(("name", "launches"), [("all-pairs rank", 3), ("one-program sort", 1)])
def test_triton_peers_compile_once_for_all_budgets(name: str, launches: int, draft_lens, driver, kernels) -> None:
    import machine_code  # which imports triton

    for budget in (1, 16, 77):
        driver.launches.clear()
        here(name).select(torch.zeros(64, 8), budget, draft_lens)
        assert len(driver.launches) == launches
    compiled = [one for kernel in kernels for cache in kernel.device_caches.values() for one in cache[0].values()]
    assert len(compiled) == launches
    assert [machine_code.resources(one)["spills"] for one in compiled] == [0] * launches


def test_the_catalogue() -> None:
    names = [peer.name for peer in (*catalogue.OURS, *catalogue.PEERS)]
    assert len(set(names)) == len(names) == 13
    assert {peer.name for peer in catalogue.PEERS if not peer.exact} == {
        "cumprod + topk, eager",
        "cumprod + topk, compiled",
        "topk + scatter_max",
    }
    assert all(peer.source and peer.devices <= {"cpu", "cuda"} for peer in catalogue.PEERS)
    sort = catalogue.by_name("one-program sort")
    assert sort.takes("cuda", 1024, 8) and not sort.takes("cuda", 1024, 16) and not sort.takes("cpu", 8, 4)


def test_the_papers_form_exceeds_the_budget() -> None:
    select = catalogue.by_name("topk + scatter_max").select
    kept, cu_lens = select(torch.zeros(4, 5), 8, None)
    assert sum(kept.tolist()) == cu_lens[-1] == 10
    verdict = gate.judge(
        catalogue.by_name("topk + scatter_max"), Input("all tied", 0.4, 0, torch.zeros(4, 5), 8, None), [2, 2, 2, 2]
    )
    assert (verdict.red, verdict.excess) == (False, 2)


def test_inputs_are_what_they_say() -> None:
    for batch in inputs.grid(((64, 8),)):
        keys = batch.logprobs.double().neg().cumsum(1)
        real = torch.ones(64, 8, dtype=torch.bool)
        if batch.draft_lens is not None:
            assert batch.draft_lens.min() == 0 and batch.draft_lens.max() == 8
            real = torch.arange(8) < batch.draft_lens[:, None]
        ordered = keys[real].sort().values
        assert batch.budget == round(batch.fraction * len(ordered))
        gap = float(ordered[batch.budget] - ordered[batch.budget - 1])
        assert batch.clear == (batch.kind in ("smooth", "ragged"))
        assert gap > inputs.MARGIN if batch.clear else batch.kind == "near-certain" or gap == 0
    zeros = inputs.make("near-certain", 64, 8, 0.5).logprobs == 0
    assert 0.5 < zeros.double().mean() < 0.7


def wrong(select, change):
    """A peer whose answer is changed."""

    def changed(*args):
        kept, cu_lens = select(*args)
        return change(kept.clone(), cu_lens.clone())

    return changed


def first_row_longer(kept, cu_lens):
    kept[0] += 1
    return kept, torch.nn.functional.pad(kept.cumsum(0, dtype=torch.int32), (1, 0))


ERRORS = {
    "lens differ": first_row_longer,
    "cu_lens are not the sums of lens": lambda kept, cu_lens: (kept, cu_lens + 1),
    "lens is torch.int64": lambda kept, cu_lens: (kept.long(), cu_lens),
    "cu_lens is torch.int32 (8,) on cpu": lambda kept, cu_lens: (kept, cu_lens[:-1]),
}


@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("name", ["numpy partition", "cumprod + topk, eager"])
def test_the_gate_sees_errors(name: str, error: str) -> None:
    peer = catalogue.by_name(name)
    planted = dataclasses.replace(peer, load=lambda: wrong(peer.select, ERRORS[error]))
    batch = inputs.make("smooth", 8, 4, 0.5)
    assert not gate.check([peer], [batch])[0].red
    with pytest.raises(gate.RedGate) as red:
        gate.require_green(gate.check([peer, planted], [batch]))
    line, total = str(red.value).splitlines()
    assert line.startswith(f"RED  {name} on {batch.name}: {error}")
    assert total == "1 of 2 verdicts are red: nothing is measured"


def test_the_gate_sees_a_changed_input() -> None:
    def select(logprobs, budget, draft_lens):
        return catalogue.by_name("numpy partition").select(logprobs.neg_().neg_().sub_(1), budget, draft_lens)

    planted = dataclasses.replace(catalogue.by_name("numpy partition"), load=lambda: select)
    batch = inputs.make("all tied", 8, 4, 0.5)
    assert gate.check([planted], [batch])[0].why == "an input has changed"


PLANTED = """
import sys
from bench import bench_select, inputs
from bench.peers import catalogue

bench_select.SHAPES = ((8, 4),)
bench_select.TURNS = 1
kinds = {kind: inputs.KINDS[kind] for kind in ("smooth", "all tied")}
inputs.KINDS.clear()
inputs.KINDS.update(kinds)
names = ("numpy partition", "topk + scatter_max")
catalogue.PEERS = tuple(peer for peer in catalogue.PEERS if peer.name in names)
bench_select.cpu_results.FOLDER = bench_select.Path(sys.argv[1])
if len(sys.argv) > 2:
    from bench.peers import partition_numpy
    right = partition_numpy.select
    def select(*args):
        lens, cu_lens = right(*args)
        return lens.flip(0), cu_lens
    partition_numpy.select = select
sys.exit(bench_select.main())
"""


@pytest.mark.parametrize("error", [False, True], ids=["right", "wrong"])
def test_a_red_gate_prints_and_writes_no_number(error: bool, tmp_path: Path) -> None:
    command = [sys.executable, "-c", PLANTED, str(tmp_path), *(["wrong"] if error else [])]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests"), str(ROOT / "python")])
    # pytest-benchmark measures nothing in a worker of pytest-xdist, which these tests may run in.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    environment["PYTHONPATH"] = paths
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    written = sorted(path.name for path in tmp_path.iterdir())
    if error:
        assert done.returncode == 1 and written == []
        assert "RED  numpy partition on 8x4 smooth" in done.stdout
        assert "Microseconds" not in done.stdout and "8 x 4" not in done.stdout
    else:
        assert done.returncode == 0, done.stdout + done.stderr
        assert written == ["select-cpu.csv", "select-cpu.json"]
        rows = (tmp_path / "select-cpu.csv").read_text().splitlines()
        assert len(rows) == 1 + 3 * 2 * len(inputs.FRACTIONS)
        assert "Microseconds" in done.stdout and "topk + scatter_max" in done.stdout


def test_cpp_peers_say_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(Unavailable, match="need a compiler, and there is no 'no-such-compiler' on the path"):
        cpp.load("radix")
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        cpp.compiler()
    except Unavailable as reason:
        pytest.skip(str(reason))
    monkeypatch.setattr(cpp, "FLAGS", ("-no-such-flag",))
    with pytest.raises(Unavailable, match=r"refused radix\.cpp"):
        cpp.load("radix")


def test_cpp_peers_are_compiled_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        cpp.load("heap")
    except Unavailable as reason:
        pytest.skip(str(reason))
    first = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.so")}
    cpp.load("heap")
    again = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.so")}
    assert first == again and len(first) == 1
