"""Counters of an engine's process, in a file that the server's process reads for Prometheus."""

from __future__ import annotations

import atexit
import itertools
import mmap
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tetris_vllm.settings import COUNTERS

# Name and meaning. Prometheus calls them tetris:<name>_total.
NAMES = {
    "steps": ("steps", "Steps in which drafts arrived."),
    "proposed": (
        "draft_tokens_proposed",
        "Draft tokens that arrived: of requests that go on, and that no grammar forbids.",
    ),
    "budget": ("draft_tokens_budget", "Draft tokens that budgets allowed to be verified, of those proposed."),
    "verified": ("draft_tokens_verified", "Draft tokens that were verified."),
    "accepted": ("draft_tokens_accepted", "Draft tokens that were accepted."),
    "seconds": ("selection_seconds", "Seconds of the scheduler spent on choosing which draft tokens are verified."),
}
_SIZE = 8 * len(NAMES)
_made = itertools.count()


class Counters:
    """float64 numbers by the keys of NAMES, written by one process and read by others.

    A number is eight aligned bytes, so that a reader sees one that was there, if not all of the same moment.
    """

    def __init__(self, path: Path, labels: str) -> None:
        path.write_bytes(bytes(_SIZE) + labels.encode())
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), _SIZE)
        self._values = memoryview(self._memory).cast("d")

    @classmethod
    def create(cls, model: str, engine: str) -> Counters:
        """A new file in the directory that `share` has made, or in a new one of this process alone."""
        directory = share()
        # Inherited, it may be of a process that has ended, or of another machine.
        directory.mkdir(parents=True, exist_ok=True)
        return cls(directory / f"{os.getpid()}-{next(_made)}", f"{model}\n{engine}")

    def add(self, **amounts: float) -> None:
        for place, name in enumerate(NAMES):
            if amount := amounts.get(name):
                self._values[place] += amount


def share() -> Path:
    """The directory of the counters, of this process and of those that it starts, which find it in their environment.
    The process that makes it removes it in the end.
    """
    if COUNTERS not in os.environ:
        os.environ[COUNTERS] = tempfile.mkdtemp(prefix="tetris-vllm-")
        atexit.register(_remove, os.environ[COUNTERS], os.getpid())
    return Path(os.environ[COUNTERS])


def read(directory: Path) -> dict[tuple[str, str], dict[str, float]]:
    """By model and engine, the sums of all files there."""
    found: dict[tuple[str, str], dict[str, float]] = {}
    for path in sorted(directory.iterdir()):
        content = path.read_bytes()
        if len(content) <= _SIZE:
            continue  # being made
        model, _, engine = content[_SIZE:].decode().rpartition("\n")
        sums = found.setdefault((model, engine), dict.fromkeys(NAMES, 0.0))
        for name, value in zip(NAMES, struct.unpack_from(f"{len(NAMES)}d", content), strict=True):
            sums[name] += value
    return found


class Collector:
    """For `prometheus_client`'s registry: what `read` finds, whenever it is asked."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Any]:
        from prometheus_client.core import CounterMetricFamily

        found = read(self._directory) if self._directory.is_dir() else {}
        for key, (name, meaning) in NAMES.items():
            family = CounterMetricFamily(f"tetris:{name}", meaning, labels=["model_name", "engine"])
            for labels, sums in found.items():
                family.add_metric(list(labels), sums[key])
            yield family


def expose() -> None:
    """Add the counters to this process's Prometheus registry, which vLLM's server shows under /metrics."""
    from prometheus_client import REGISTRY

    REGISTRY.register(Collector(share()))


def _remove(directory: str, process: int) -> None:
    # A forked process has the same exit handlers.
    if os.getpid() == process:
        shutil.rmtree(directory, ignore_errors=True)
