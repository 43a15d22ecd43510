"""What a selection costs on the CPU, one thread, against its named peers: `make bench-select`, a few minutes.

Wall clock of a call, measured with pytest-benchmark: the whole grid several times over, so that a busy neighbour hits
all of them. Before that every peer is checked on every input; if one is wrong, no number is printed or written.
"""

from __future__ import annotations

import itertools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from bench import cpu_results, gate, inputs
from bench.peers import catalogue
from bench.peers.peer import Peer, Unavailable

SHAPES = (*inputs.SHAPES, (4096, 32))  # the last is beyond one GPU program, and where the aims end
TURNS = 9
ROUND_SECONDS, TURN_SECONDS = 5e-4, 8e-3


def available() -> tuple[list[Peer], dict[str, str]]:
    """Ours and the peers that load here; of the others, why they do not."""
    usable, reasons = [], {}
    for peer in (*catalogue.OURS, *catalogue.PEERS):
        if "cpu" in peer.devices:
            try:
                _ = peer.select
                usable.append(peer)
            except Unavailable as reason:
                reasons[peer.name] = str(reason)
    return usable, reasons


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    batches = list(inputs.grid(SHAPES))
    cells = itertools.product(range(TURNS), batches, available()[0])
    metafunc.parametrize(("turn", "batch", "peer"), list(cells), ids=str)


@pytest.fixture(scope="session")
def verdicts() -> dict[tuple[str, str], gate.Verdict]:
    """By peer and input. A red one ends the session before anything is measured."""
    torch.set_num_threads(1)
    found = gate.check(available()[0], inputs.grid(SHAPES))
    try:
        gate.require_green(found)
    except gate.RedGate as red:
        pytest.exit(str(red), returncode=1)
    return {(verdict.peer, verdict.input): verdict for verdict in found}


def test_select(benchmark: Any, verdicts: dict[Any, gate.Verdict], turn: int, batch: inputs.Input, peer: Peer) -> None:
    verdict = verdicts[peer.name, batch.name]
    num_requests, num_drafts = batch.logprobs.shape
    benchmark.extra_info.update(
        requests=num_requests,
        drafts=num_drafts,
        kind=batch.kind,
        fraction=batch.fraction,
        budget=batch.budget,
        seed=batch.seed,
        peer=peer.name,
        rows_differ=verdict.differ,
        excess=verdict.excess,
    )
    select, args = peer.select, (batch.logprobs, batch.budget, batch.draft_lens)
    iterations, rounds = repetitions(lambda: select(*args))
    benchmark.pedantic(select, args, iterations=iterations, rounds=rounds)


def repetitions(call: Callable[[], object]) -> tuple[int, int]:
    """Calls in a round, and rounds, after two calls for warmth."""
    call()
    start = time.perf_counter()
    call()
    seconds = time.perf_counter() - start
    iterations = max(int(ROUND_SECONDS / seconds), 1)
    return iterations, max(int(TURN_SECONDS / (seconds * iterations)), 1)


def main() -> int:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.json"
        options = ["-q", "--no-header", "-p", "no:cacheprovider", "--benchmark-only", "--benchmark-quiet"]
        status = pytest.main([*options, "--benchmark-disable-gc", f"--benchmark-json={report}", __file__])
        if status != pytest.ExitCode.OK:
            print("no result: the checks above come first", file=sys.stderr)
            return 1
        measured = json.loads(report.read_text())["benchmarks"]
    rows = cpu_results.cells(measured)
    cpu_results.write("select-cpu", rows)
    print(cpu_results.table(rows))
    for name, reason in available()[1].items():
        print(f"{name} was left out: {reason}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
