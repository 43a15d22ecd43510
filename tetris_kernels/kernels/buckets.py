"""Padded shapes of the kernels that hold a batch in one program."""

from __future__ import annotations

import itertools
from typing import TypeAlias

Shape: TypeAlias = tuple[int, int, int]  # requests, drafts, warps


def smallest(buckets: tuple[Shape, ...], num_requests: int, num_drafts: int) -> Shape | None:
    """The first bucket that holds the batch, or None."""
    return next((b for b in buckets if num_requests <= b[0] and num_drafts <= b[1]), None)


def reached(buckets: tuple[Shape, ...], max_requests: int, max_drafts: int) -> list[Shape]:
    """The buckets of all batches up to this size."""
    sizes = itertools.product({b[0] for b in buckets} | {max_requests}, {b[1] for b in buckets} | {max_drafts})
    found = {smallest(buckets, n, k) for n, k in sizes if n <= max_requests and k <= max_drafts}
    return [bucket for bucket in buckets if bucket in found]


def too_large(buckets: tuple[Shape, ...], num_requests: int, num_drafts: int) -> str:
    """What to say of a batch that no bucket holds."""
    most = max(n * k for n, k, _ in buckets)
    widest = ", ".join(f"{n} x {k}" for n, k, _ in buckets if n * k == most)
    return (
        f"backend 'triton': expected a batch that one program holds (requests x drafts up to {widest}), "
        f"got {num_requests} x {num_drafts}; 'auto' and 'torch' take it"
    )
