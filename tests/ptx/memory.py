"""Memory with bounds and alignment, and who used it since the last barrier."""

from __future__ import annotations

from typing import Any

import numpy as np

from ptx.faults import Misaligned, OutOfBounds, Race, Uninitialised
from ptx.types import Array, Mask

GARBAGE = 0xCD  # a byte that nothing was written to
LOAD, STORE, ATOMIC = range(3)
FIRST_ADDRESS = 4096
GAP = 4096  # between two allocations, so that a stray access falls into nothing


class Users:
    """Who used each cell of some bytes in the present epoch, and how.

    Two users of a cell race if one of them stores, or one has an atomic access and one loads.
    """

    def __init__(self, num_bytes: int, cell: int, num_users: int, what: str) -> None:
        num_cells = -(-num_bytes // cell)
        self.cell, self.num_users, self.what = cell, num_users, what
        self.epoch = 0
        # Entries from before `epoch` are of no account: a new epoch clears nothing.
        self.first = np.full(num_cells, -1, np.int64)
        self.shared = np.full(num_cells, -1, np.int64)
        self.used = np.full((3, num_cells), -1, np.int64)

    def new_epoch(self) -> None:
        self.epoch += self.num_users

    def note(self, kind: int, addresses: Array, size: int, users: Array) -> None:
        """`users` access `size` aligned bytes each."""
        per = size // self.cell
        cells = (addresses // self.cell)[:, None] + np.arange(per)
        stamps = np.broadcast_to(self.epoch + users[:, None], cells.shape)
        first = self.first[cells]
        if (fresh := first < self.epoch).any():
            # Of several that are the first in one instruction, any one will do.
            self.first[cells[fresh]] = stamps[fresh]
            first = self.first[cells]
        if (others := first != stamps).any():
            self.shared[cells[others]] = self.epoch
        self.used[kind][cells] = self.epoch
        stored, touched = self.used[STORE][cells] == self.epoch, self.used[ATOMIC][cells] == self.epoch
        wrong = stored | touched & (self.used[LOAD][cells] == self.epoch)
        if wrong.any() and (wrong := wrong & (self.shared[cells] == self.epoch)).any():
            where, part = (int(index[0]) for index in wrong.nonzero())
            earlier = int(first[where, part]) - self.epoch
            raise Race(
                f"a race of {self.what} {int(users[where])} and another, {earlier} or later, "
                f"at byte {int(cells[where, part]) * self.cell}"
            )


class Memory:
    """Bytes, of which some may be accessed."""

    def __init__(self, data: Array, allowed: Mask, written: Mask | None = None) -> None:
        self.data = data
        self.allowed = allowed
        self.written = written  # None: all of them
        self.users: list[tuple[Users, bool]] = []  # and whether these are programs, not threads

    def check(self, addresses: Array, size: int) -> None:
        if (wrong := addresses % size != 0).any():
            raise Misaligned(f"address {addresses[wrong][0]:#x} is not a multiple of {size}")
        inside = (addresses >= 0) & (addresses <= len(self.data) - size)
        rows = np.where(inside, addresses, 0) // size
        inside &= self.allowed.reshape(-1, size)[rows].all(axis=1)
        if not inside.all():
            raise OutOfBounds(f"{(~inside).sum()} threads, the first at {addresses[~inside][0]:#x}, {size} bytes")

    def note(self, kind: int, addresses: Array, size: int, threads: Array, program: int) -> None:
        for users, are_programs in self.users:
            users.note(kind, addresses, size, np.full_like(threads, program) if are_programs else threads)

    def check_written(self, addresses: Array, size: int, used_bytes: int | None) -> None:
        if self.written is None:
            return
        known = self.written.reshape(-1, size)[addresses // size]
        if used_bytes is not None:
            known = known | (used_bytes >> np.arange(size) & 1 == 0)
        if not known.all():
            raise Uninitialised(f"shared memory at {addresses[~known.all(axis=1)][0]:#x} is read before it is written")

    def load(self, dtype: np.dtype[Any], addresses: Array, part: int = 0) -> Array:
        elements: Array = self.data.view(dtype)
        return elements[addresses // dtype.itemsize + part]

    def store(self, addresses: Array, values: Array, part: int = 0) -> None:
        width = values.dtype.itemsize
        self.data.view(values.dtype)[addresses // width + part] = values
        if self.written is not None:
            self.written.reshape(-1, width)[addresses // width + part] = True


def shared_memory(size: int) -> Memory:
    """All of `size` bytes, and garbage in them."""
    padded = -(-size // 16) * 16
    return Memory(np.full(padded, GARBAGE, np.uint8), np.arange(padded) < size, np.zeros(padded, bool))


class GlobalMemory(Memory):
    """Copies of allocations, of each of which some bytes may be accessed."""

    def __init__(self, allocations: list[tuple[Array, Mask]]) -> None:
        """Pairs of bytes and of those that are allowed."""
        self.allocations = allocations
        self.bases: list[int] = []
        end = FIRST_ADDRESS
        for data, _ in allocations:
            self.bases.append(end)
            end = -(-(end + len(data)) // 256) * 256 + GAP
        super().__init__(np.full(end, GARBAGE, np.uint8), np.zeros(end, bool))
        for base, (data, allowed) in zip(self.bases, allocations, strict=True):
            self.data[base : base + len(data)] = data
            self.allowed[base : base + len(data)] = allowed

    def copy_back(self) -> None:
        for base, (data, allowed) in zip(self.bases, self.allocations, strict=True):
            data[allowed] = self.data[base : base + len(data)][allowed]


def wavefronts(warps: Array, addresses: Array, size: int) -> int:
    """How often a shared access goes to the banks: per warp, the most distinct words that fall into one of 32 banks."""
    words = ((addresses[:, None] + np.arange(0, size, 4)) >> 2).reshape(-1)
    distinct = np.unique(np.repeat(warps, max(1, size // 4)) << 32 | words)
    counts = np.bincount((distinct >> 32) * 32 + (distinct & 31))
    counts = np.pad(counts, (0, -len(counts) % 32))
    return int(counts.reshape(-1, 32).max(axis=1).sum())


def sectors(warps: Array, addresses: Array) -> int:
    """How many 32-byte sectors a global access touches, for each warp. No access straddles two."""
    return len(np.unique(warps << 48 | addresses >> 5))
