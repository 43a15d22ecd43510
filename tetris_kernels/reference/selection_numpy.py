"""select on CPU tensors in numpy, whose calls cost less than torch's: most of a small batch's time is calls.

From the keys on, arrays are [K, N], position by position: sums over positions are then sums of whole rows, and the
flat index is the order of ties.
"""

from __future__ import annotations

import itertools
import math
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Bools: TypeAlias = NDArray[np.bool_]
Keys: TypeAlias = NDArray[np.int32]

# Arrays of no dimension: numbers cost a conversion in each call.
NEVER = np.array(2**31 - 1, np.int32)
WORST, BEST, UNITS = (np.array(value, np.float32) for value in (-64, 0, -65536))
SAMPLED_FROM = 1024  # entries: below, partitioning all of them is as fast
SAMPLES = 512
SPREAD = 32  # samples on either side of the wanted rank: it is off by up to 11 in two of three cases


def select(
    draft_logprobs: Tensor,
    budget: Tensor | None,
    host_budget: int,
    draft_lens: Tensor | None,
    min_lens: Tensor | None,
    max_lens: Tensor | None,
    log_weights: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """`reference.selection.select` for tensors on the CPU."""
    num_requests, num_drafts = draft_logprobs.shape
    beyond = _beyond(num_drafts, draft_lens, max_lens)
    usable = draft_logprobs.numel() - (0 if beyond is None else np.count_nonzero(beyond))
    size = host_budget if budget is None else max(int(budget), 0)
    if size < usable:
        lens = _first(_order_keys(draft_logprobs, beyond, min_lens, log_weights), size).sum(0, dtype=np.int32)
    elif beyond is None:
        lens = np.full(num_requests, num_drafts, np.int32)
    else:
        lens = num_drafts - beyond.sum(0, dtype=np.int32)
    cu_lens = np.zeros(num_requests + 1, np.int32)
    np.add.accumulate(lens, out=cu_lens[1:])
    return torch.from_numpy(lens), torch.from_numpy(cu_lens)


def _beyond(num_drafts: int, draft_lens: Tensor | None, max_lens: Tensor | None) -> Bools | None:
    """[K, N]: the drafts that may not be taken at all; None for none."""
    ends = [lens.numpy() for lens in (draft_lens, max_lens) if lens is not None]
    if not ends:
        return None
    first, *others = (_positions(num_drafts, end) >= end for end in ends)
    return first | others[0] if others else first


def _order_keys(
    draft_logprobs: Tensor, beyond: Bools | None, min_lens: Tensor | None, log_weights: Tensor | None
) -> Keys:
    """[K, N] in units of 2^-16 nats, smaller is better; NEVER beyond the usable drafts."""
    values = draft_logprobs.float().numpy(force=True)
    values = np.minimum(np.fmax(values, WORST), BEST)  # of NaN and a number, fmax takes the number
    keys = _running_sums(values * UNITS)
    if log_weights is not None:
        weights = np.fmax(log_weights.numpy(force=True), -500).clip(-500, 500)  # NaN counts as -500
        keys += ((500 - weights) * 65536).astype(np.int32)
    if beyond is not None:
        np.maximum(keys, beyond * NEVER, out=keys)
    if min_lens is not None:
        floor = min_lens.numpy()
        np.copyto(keys, -1, where=(_positions(len(keys), floor) < floor) & (keys < NEVER))
    return keys


def _running_sums(costs: NDArray[np.float32]) -> Keys:
    """[K, N]: sums of the truncated costs [N, K]."""
    num_requests, num_drafts = costs.shape
    if num_requests < 16 * num_drafts:
        return np.add.accumulate(costs, 1, np.int32).T.copy()
    # numpy adds up row by row, at a price for each: fewer calls for all rows together cost less.
    sums = costs.T.astype(np.int32, order="C")
    for previous, following in itertools.pairwise(sums):
        following += previous
    return sums


def _positions(num_drafts: int, lens: NDArray[Any]) -> NDArray[Any]:
    """[K, 1], to compare with lens of this dtype: numpy is slow at comparing others."""
    return np.arange(num_drafts, dtype=lens.dtype)[:, None]


def _first(keys: Keys, size: int) -> Bools:
    """[K, N]: the first `size` in (key, position, request) order, which are not all that are usable."""
    flat = keys.ravel()
    cut = _key_at(flat, max(size - 1, 0), keys.shape[1])
    taken = flat <= cut
    excess = np.count_nonzero(taken) - size
    if excess:
        # The last of those that equal the cut are too many: from the first of them on, none is taken.
        end = np.flatnonzero(flat == cut)[-excess]
        np.less(flat[end:], cut, out=taken[end:])
    return taken.reshape(keys.shape)


def _key_at(keys: Keys, index: int, num_requests: int) -> Keys:
    """The key at `index` of [K x N] keys in ascending order, as an array of no dimension.

    Of a large batch only the keys between two of a sample's are partitioned, as in Floyd and Rivest's SELECT
    (CACM 18(3), 1975); all of them, should the sample have missed. Keys that are equal to one of the two are not among
    them: partitioning many equal keys is slow.
    """
    if keys.size >= SAMPLED_FROM:
        sample = _sorted_sample(keys, num_requests)
        middle = index * sample.size // keys.size
        low, high = sample[max(middle - SPREAD, 0), ...], sample[min(middle + SPREAD, sample.size - 1), ...]
        between = keys > low
        up_to_low = keys.size - int(np.count_nonzero(between))
        if index < up_to_low:
            if index >= np.count_nonzero(keys < low):
                return low
        else:
            between &= keys < high
            if index < up_to_low + np.count_nonzero(between):
                candidates = np.compress(between, keys)
                candidates.partition(index - up_to_low)
                return candidates[index - up_to_low, ...]
            if index < np.count_nonzero(keys <= high):
                return high
    return np.partition(keys, index)[index, ...]


def _sorted_sample(keys: Keys, num_requests: int) -> Keys:
    """Keys at equal distances, which is a fair share of each position."""
    step = keys.size // SAMPLES
    while math.gcd(step, num_requests) > 1:  # or some requests would never be sampled
        step += 1
    sample = keys[::step].copy()
    sample.sort()
    return sample
