"""What something costs on a GPU, measured in four ways. Times are microseconds, medians."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import TypeVar

import torch

Call = Callable[[], object]
Batch = TypeVar("Batch")

SEEDS = 8  # different batches of a kind in one measurement
BUFFERS = 16  # buffers that its calls go round

REPLAYS = 51
FLUSH_BYTES = 256 << 20  # several times the L2 of any GPU so far
HOST_ROUNDS = 200


def in_turn(some: Sequence[Batch]) -> list[Batch]:
    """The batches over and over, one for each buffer."""
    return list(itertools.islice(itertools.cycle(some), BUFFERS))


def capture(calls: Sequence[Call]) -> tuple[torch.cuda.CUDAGraph, list[object]]:
    """All calls as one graph, in which each waits for the one before; and their outputs, which a replay fills."""
    for call in calls[:2]:
        call()  # compiles
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = [call() for call in calls]
    return graph, outputs


def warm(calls: Sequence[Call], replays: int = REPLAYS) -> tuple[float, list[object]]:
    """A call, by replays of a graph of calls over distinct buffers: no host, and the inputs in L2 where they fit.

    It includes the gap between two kernels of a graph, of about a microsecond, and every launch of the call. With the
    outputs of the last replay.
    """
    graph, outputs = capture(calls)
    times = []
    for _ in range(replays + 2):
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        start.record()
        graph.replay()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3)
    return statistics.median(times[2:]) / len(calls), outputs


def on_stream(calls: Sequence[Call], before: Call = lambda: None) -> float:
    """What an eager call takes on a stream while the host is ahead of it: kernels and the gaps between them."""
    times = []
    for call in calls:
        torch.cuda.synchronize()
        start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        torch.cuda._sleep(3_000_000)  # cycles: longer than the host takes to launch all of the call
        before()
        start.record()
        call()
        end.record()
        end.synchronize()
        times.append(start.elapsed_time(end) * 1e3)
    return statistics.median(times)


def cold(calls: Sequence[Call]) -> float:
    """The same after the L2 has been overwritten: to be compared with `on_stream`, not with `warm`."""
    waste = torch.zeros(FLUSH_BYTES // 4, device="cuda")
    return on_stream(calls, lambda: waste.add_(1.0))


def on_host(call: Call, rounds: int = HOST_ROUNDS) -> float:
    """The host's clock from an idle device until the result is there."""
    times = []
    for _ in range(rounds + 20):
        torch.cuda.synchronize()
        start = perf_counter()
        call()
        torch.cuda.synchronize()
        times.append((perf_counter() - start) * 1e6)
    return statistics.median(times[20:])


def limits(num_bytes: int = 1 << 30) -> dict[str, str]:
    """What this GPU gives: an almost empty kernel in a graph, a copy (bytes read and written), torch's sum (read)."""
    numbers = torch.zeros(64, device="cuda")
    source = torch.zeros(num_bytes // 4, device="cuda")
    target = torch.empty_like(source)
    calls = {
        "kernel": [lambda: numbers.add_(1.0)] * 100,
        "copy": [lambda: target.copy_(source)] * 4,
        "read": [lambda: source.sum()] * 4,
    }
    microseconds = {name: warm(some)[0] for name, some in calls.items()}
    return {
        "smallest kernel us": f"{microseconds['kernel']:.2f}",
        "copy TB/s": f"{2 * num_bytes / microseconds['copy'] / 1e6:.2f}",
        "read TB/s": f"{num_bytes / microseconds['read'] / 1e6:.2f}",
    }
