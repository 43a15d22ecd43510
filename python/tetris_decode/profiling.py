"""Measure what steps cost on this machine: the `CostTable` of a live model and drafter."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import PreTrainedModel

from tetris_decode.batch import Batch
from tetris_decode.decoder import Decoder, propose
from tetris_decode.drafting import Drafter
from tetris_decode.inputs import Inputs
from tetris_decode.machine import machine
from tetris_decode.policies import Tetris
from tetris_decode.sampling import Sampling
from tetris_kernels import CostTable

# Drafts verified per request and step, in the steps that are measured.
BUDGETS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)
MORE_BUDGETS = (6.0, 8.0)  # where they are no more tokens than SMALL
SMALL = 64


def measure_costs(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    drafter: Drafter,
    *,
    num_drafts: int,
    steps: int = 10,
    temperature: float = 0.0,
    tokens: Sequence[int] | None = None,
    staircase: bool = False,
    key: Mapping[str, str] | None = None,
    on_step: Callable[[], None] | None = None,
) -> CostTable:
    """Steps of TETRIS with budgets from 0 on, in turn, all requests running: medians, by tokens in the batch.

    A fixed length of as many tokens costs a little less, as all requests have one length then. Below the first point,
    where requests have ended, the table says what a full batch costs. Of a curve the points with drafts are drawn
    towards their neighbours (`smooth`), since a plan finds what noise makes too cheap. More tokens that still seem
    cheaper are pooled (isotonic regression). Times are the host's; on a GPU a step ends when its tokens are on the
    host.

    Args:
        prompts: a full batch of token ids, long enough to be typical.
        drafter: proposes the drafts.
        num_drafts: made for each request in a step; drafting is measured from 1 on.
        steps: measured of each budget, and drafting of each length; one more of each before, which allocates.
        temperature: of all requests.
        tokens: in the batches that are measured, the requests' last tokens included. By default those of `BUDGETS`.
        staircase: whether those are buckets, see `CostTable`.
        key: what the table is of, see `CostTable`.
        on_step: called after each step: `steps` + 1 of each of the tokens.

    Raises:
        ValueError: tokens that are fewer than the requests, or more than requests and drafts.
    """
    num_requests = len(prompts)
    most = num_requests * (num_drafts + 1)
    sizes = sorted(set(default_tokens(num_requests, num_drafts) if tokens is None else tokens))
    if not sizes or sizes[0] < num_requests or sizes[-1] > most:
        raise ValueError(f"tokens: expected numbers from {num_requests} to {most}, got {sizes}")
    decoders = {}
    for size in sizes:
        batch = Batch(
            prompts,
            # Nobody ends before the measurement does.
            (steps + 1) * (num_drafts + 1) + 1,
            num_drafts=num_drafts,
            sampling=Sampling(num_requests, temperature=temperature, device=model.device),
            device=model.device,
        )
        # A drafting model has a cache of one batch.
        policy = Tetris((size - num_requests) / num_requests, num_drafts)
        decoders[size] = Decoder(model, batch, copy.copy(drafter), policy)
    for _ in range(steps + 1):
        # In turn, so that a machine that changes its speed does so for all of them.
        for decoder in decoders.values():
            decoder.step()
            if on_step:
                on_step()
    # The first step of a decoder allocates.
    rounds = [[step.seconds - step.draft_seconds for step in d.steps[1:]] for d in decoders.values()]
    seconds = typical(np.array(rounds))
    if not staircase:
        # A batch without drafts is another kind of step: one token of each request.
        drafted = 1 if sizes[0] == num_requests else 0
        seconds[drafted:] = smooth(sizes[drafted:], seconds[drafted:])
    drafts = list(decoders.values())[-1]
    drafting = [0.0, *(_drafting(drafts, length, steps) for length in range(1, num_drafts + 1))]
    return CostTable(
        key=key or {},
        tokens=tuple(decoders),
        seconds=isotonic(seconds.tolist()),
        draft_seconds=isotonic(drafting),
        staircase=staircase,
    )


def key(inputs: Inputs, batch_size: int, temperature: float) -> dict[str, str]:
    """What a table of these inputs is of: tables of another device, model, dtype, drafter or version are refused."""
    return {
        "model": inputs.chat.name,
        "dtype": str(inputs.chat.model.dtype).removeprefix("torch."),
        "drafter": inputs.drafter_name,
        "batch_size": str(batch_size),
        "temperature": f"{temperature:g}",
        "device": machine(inputs.chat.model.device),
    }


def default_tokens(num_requests: int, num_drafts: int) -> list[int]:
    """Tokens of the batches that `measure_costs` measures if it is not told others."""
    budgets = [*BUDGETS, *(budget for budget in MORE_BUDGETS if num_requests * (1 + budget) <= SMALL)]
    return sorted({num_requests + round(budget * num_requests) for budget in budgets if budget <= num_drafts})


def typical(seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """[sizes]: of times [sizes, rounds], those of a round of median speed.

    A machine that others use changes its speed by more than sizes differ, and slowly: what all sizes of a round have in
    common is divided out before the median over rounds is taken.
    """
    logs = np.log(seconds)
    speed = np.median(logs, axis=0)
    levels: NDArray[np.float64] = np.exp(np.median(logs - speed, axis=1) + np.median(speed))
    return levels


def smooth(tokens: Sequence[int], seconds: NDArray[np.float64]) -> NDArray[np.float64]:
    """Each time as the straight line has it that is nearest to it and its two neighbours, at the ends to the three
    nearest points (local regression, of relative errors), and never beyond those three. Straight lines stay as they
    are; fewer than three points too."""
    if len(tokens) < 3:
        return seconds
    fitted = np.empty(len(tokens))
    for i, size in enumerate(tokens):
        first = min(max(i - 1, 0), len(tokens) - 3)
        near = slice(first, first + 3)
        line = np.polyfit(tokens[near], seconds[near], 1, w=1 / seconds[near])
        fitted[i] = np.clip(np.polyval(line, size), seconds[near].min(), seconds[near].max())
    return fitted


def isotonic(values: Sequence[float]) -> tuple[float, ...]:
    """The sequence that never falls and is nearest to `values` by squares: neighbours that fall share their mean
    (pool adjacent violators)."""
    pools: list[tuple[float, int]] = []  # sums and counts
    for value in values:
        total, count = value, 1
        while pools and pools[-1][0] * count > total * pools[-1][1]:
            before, many = pools.pop()
            total, count = total + before, count + many
        pools.append((total, count))
    return tuple(total / count for total, count in pools for _ in range(count))


@torch.inference_mode()
def _drafting(decoder: Decoder, length: int, times: int) -> float:
    """Seconds of proposing `length` drafts for each request of a decoder that drafts, the median."""
    found = []
    for _ in range(times):
        began = perf_counter()
        propose(decoder.batch, decoder.drafter, length)
        found.append(perf_counter() - began)
    return median(found)
