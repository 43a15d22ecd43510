"""Readback: what a device computed some steps ago, on the host, without waiting for it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

COPIES = 2  # on their way at a time


class Arrival(NamedTuple):
    """values: a tensor of the caller's own on the CPU. tag: what was pushed with them."""

    values: Tensor
    tag: Any


class _Copy(NamedTuple):
    """A copy on its way: where it goes, what comes with it, and whether it has arrived."""

    buffer: Tensor
    tag: Any
    has_arrived: Callable[[], bool]


class Readback:
    """Small tensors of a device on their way to the host: `push` one each step, and read `latest`.

    Two copies are on their way at most, each into pinned memory of its own with an event behind it. A host that is
    further ahead than that pushes in vain until one arrives, so that the newest that it can have is never lost.
    Neither method waits for the device. Not to be used while a CUDA graph is being captured: push what the graph has
    written, after its replay.
    """

    def __init__(self) -> None:
        self._on_their_way: deque[_Copy] = deque()
        self._free: list[Tensor] = []
        self._newest: Arrival | None = None

    def push(self, values: Tensor, tag: Any = None) -> bool:
        """Begin to copy `values`, of any shape, on their device's current stream. What is done to them later on that
        stream does not change the copy. False if nothing was begun, as two copies are on their way.

        tag: comes back with them, such as the number of the step, or the budgets that they are of.

        Raises:
            TypeError: values that are no tensor.
        """
        if not isinstance(values, Tensor):
            raise TypeError(f"values: expected a torch.Tensor, got {type(values).__name__}")
        self._collect()
        if len(self._on_their_way) == COPIES:
            return False
        self._on_their_way.append(self._begin(values.detach(), tag))
        return True

    def latest(self) -> Arrival | None:
        """The newest values that have arrived, the same again if none came since; None if none have."""
        self._collect()
        return None if self._newest is None else Arrival(self._newest.values.clone(), self._newest.tag)

    def _collect(self) -> None:
        # In their order: copies of one stream arrive in it, and those of several are read in it.
        while self._on_their_way and self._on_their_way[0].has_arrived():
            if self._newest is not None:
                self._free.append(self._newest.values)
            buffer, tag, _ = self._on_their_way.popleft()
            self._newest = Arrival(buffer, tag)

    def _begin(self, values: Tensor, tag: Any) -> _Copy:
        buffer = self._buffer(values)
        if values.is_cpu:
            buffer.copy_(values)
            return _Copy(buffer, tag, lambda: True)
        device = torch.get_device_module(values.device)
        with device.device(values.device):
            buffer.copy_(values, non_blocking=True)
            event = device.Event()
            event.record()
        return _Copy(buffer, tag, event.query)

    def _buffer(self, values: Tensor) -> Tensor:
        """Pinned memory for a device's values, which is slow to get: what was read already is used again."""
        pinned = not values.is_cpu
        while self._free:
            buffer = self._free.pop()
            if (buffer.shape, buffer.dtype, buffer.is_pinned()) == (values.shape, values.dtype, pinned):
                return buffer
        # What is made in inference mode could not be written outside of it.
        with torch.inference_mode(False):
            return torch.empty(values.shape, dtype=values.dtype, pin_memory=pinned)
