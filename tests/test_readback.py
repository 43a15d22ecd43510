"""Readback: what arrives, in which order, and that nobody waits. On CPU tensors, and with copies that arrive late."""

from __future__ import annotations

import pytest
import torch

from tetris_kernels import Readback
from tetris_kernels.readback import COPIES, _Copy


class Slow(Readback):
    """A device whose copies arrive when the test says so, into the buffers that a device would get."""

    def __init__(self) -> None:
        super().__init__()
        self.arrived = 0
        self.begun = 0
        self.buffers: list[torch.Tensor] = []

    def _begin(self, values: torch.Tensor, tag: object) -> _Copy:
        number = self.begun
        self.begun += 1
        buffer = next((b for b in self._free if b.shape == values.shape), torch.empty_like(values)).copy_(values)
        self._free = [b for b in self._free if b is not buffer]
        self.buffers.append(buffer)
        return _Copy(buffer, tag, lambda: number < self.arrived)


def test_buffers_are_used_again():
    """Of the CPU too, in inference mode and out of it."""
    readback = Readback()
    for step in range(50):
        with torch.inference_mode(step % 3 == 0):
            readback.push(torch.full((2,), float(step)))
        assert readback.latest().values.tolist() == [step, step]
    assert len(readback._free) <= COPIES


def test_on_the_cpu_the_newest_is_there_at_once():
    readback = Readback()
    assert readback.latest() is None
    values = torch.tensor([1.0, 2.0])
    for step in range(5):
        values.fill_(step)
        assert readback.push(values)
        values.fill_(-1)
        assert readback.latest().values.tolist() == [step, step]


def test_what_was_read_stays():
    readback = Readback()
    readback.push(torch.zeros(2))
    first = readback.latest().values
    first += 7
    readback.push(torch.ones(3, dtype=torch.int32))
    assert first.tolist() == [7, 7]
    assert readback.latest().values.tolist() == [1, 1, 1]
    assert readback.latest().values.dtype == torch.int32


def test_late_copies():
    slow = Slow()
    assert [slow.push(torch.full((2,), float(i))) for i in range(4)] == [True] * COPIES + [False] * (4 - COPIES)
    assert slow.latest() is None
    slow.arrived = 1
    assert slow.latest().values.tolist() == [0, 0]
    # One place is free again: what comes now is copied, what did not find a place is not.
    assert slow.push(torch.full((2,), 9.0))
    assert not slow.push(torch.full((2,), 10.0))
    assert slow.latest().values.tolist() == [0, 0]
    slow.arrived = 2
    assert slow.latest().values.tolist() == [1, 1]
    slow.arrived = 3
    assert slow.latest().values.tolist() == [9, 9]


def test_a_host_far_ahead_still_gets_values():
    """A device that is always behind: every push would overwrite the one before, were they not refused."""
    slow, seen = Slow(), set()
    for step in range(60):
        slow.push(torch.full((1,), float(step)), step)
        slow.arrived = max(step // 3 - 2, 0)  # of three steps' copies, one arrives
        latest = slow.latest()
        if latest is not None:
            assert latest.values.item() == latest.tag
            seen.add(latest.tag)
    assert len(seen) > 10
    # What arrives is used again: three buffers are enough, two on their way and one that is read.
    assert len({b.data_ptr() for b in slow.buffers}) <= COPIES + 1


def test_what_is_no_tensor():
    with pytest.raises(TypeError, match=r"values: expected a torch.Tensor, got list"):
        Readback().push([1.0])  # type: ignore[arg-type]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu():
    readback = Readback()
    with torch.cuda.device(0):
        torch.cuda.set_sync_debug_mode("error")
        try:
            for step in range(8):
                readback.push(torch.full((64,), float(step), device="cuda"))
                readback.latest()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        torch.cuda.synchronize()
        readback.push(torch.full((64,), 99.0, device="cuda"))
        torch.cuda.synchronize()
        assert readback.latest().values.tolist() == [99.0] * 64
