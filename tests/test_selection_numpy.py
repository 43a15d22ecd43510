"""The key at the cut, where only a sample of a large batch is sorted: right also where the sample misleads."""

from __future__ import annotations

import numpy as np
import pytest

from tetris_kernels.reference import selection_numpy

POSITIONS, REQUESTS = 16, 256
ENTRIES = POSITIONS * REQUESTS
NEVER = 2**31 - 1
SAMPLED = selection_numpy._sorted_sample(np.arange(ENTRIES, dtype=np.int32), REQUESTS)  # the indices


def batches() -> dict[str, np.ndarray]:
    """Keys of which the sample sees the smallest, the largest, or one that is everywhere."""
    distinct = np.random.default_rng(0).permutation(ENTRIES).astype(np.int32)
    in_sample = np.isin(np.arange(ENTRIES), SAMPLED)
    return {
        "distinct": distinct,
        "few values": distinct // 700,
        "equal": np.full(ENTRIES, 7, np.int32),
        "most are lowest": np.maximum(distinct, 3000),
        "most are highest": np.minimum(distinct, 1000),
        "half never": np.where(distinct % 2, distinct, NEVER).astype(np.int32),
        "sample too low": np.where(in_sample, 0, distinct + 1).astype(np.int32),
        "sample too high": np.where(in_sample, NEVER, distinct).astype(np.int32),
    }


@pytest.mark.parametrize("name", batches())
def test_the_key_at_every_rank(name: str) -> None:
    keys = batches()[name]
    right = np.sort(keys)
    for index in range(0, ENTRIES, 1 if name == "distinct" else 7):
        assert selection_numpy._key_at(keys, index, REQUESTS) == right[index], index


def test_the_sample_is_small_and_fair() -> None:
    positions, requests = np.divmod(SAMPLED, REQUESTS)
    assert len(SAMPLED) <= selection_numpy.SAMPLES
    assert np.ptp(np.bincount(positions, minlength=POSITIONS)) <= 1
    assert np.ptp(np.bincount(requests, minlength=REQUESTS)) <= 1


@pytest.mark.parametrize("num_requests", [1, 2, 96, 255, 1024, 3333])
def test_every_request_can_be_sampled(num_requests: int) -> None:
    keys = np.arange(4 * 3333 * 16, dtype=np.int32)
    step = np.diff(selection_numpy._sorted_sample(keys, num_requests))
    assert np.ptp(step) == 0 and np.gcd(step[0], num_requests) == 1


@pytest.mark.parametrize("name", batches())
def test_all_keys_are_partitioned_only_where_the_sample_misleads(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    partition, sizes = np.partition, []

    def noted(keys: np.ndarray, index: int) -> np.ndarray:
        sizes.append(len(keys))
        return partition(keys, index)

    monkeypatch.setattr(np, "partition", noted)
    selection_numpy._key_at(batches()[name], ENTRIES // 2, REQUESTS)
    assert sizes == ([ENTRIES] if name.startswith("sample") else [])
