"""Measure what steps cost on this machine: the `CostTable` of a live model and drafter."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from statistics import median
from time import perf_counter

import numpy as np
import torch
from transformers import PreTrainedModel

from tetris_decode.batch import Batch
from tetris_decode.costs import CostTable
from tetris_decode.decoder import Decoder, propose
from tetris_decode.drafting import Drafter
from tetris_decode.policies import Tetris
from tetris_decode.sampling import Sampling

# Drafts verified per request and step, in the steps that are measured.
BUDGETS = (0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0)


def measure_costs(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    drafter: Drafter,
    *,
    num_drafts: int,
    steps: int = 10,
    temperature: float = 0.0,
    key: Mapping[str, str] | None = None,
) -> CostTable:
    """Steps of TETRIS with budgets from 0 on, in turn, all requests running: medians, by tokens in the batch.

    A fixed length of as many tokens costs a little less, as all requests have one length then. Below the first point,
    where requests have ended, the table says what a full batch costs. What noise makes fall is raised to what comes
    before it. Times are the host's: on a GPU they may end before the work does.

    Args:
        prompts: a full batch of token ids, long enough to be typical.
        drafter: proposes the drafts.
        num_drafts: made for each request in a step; drafting is measured from 1 on.
        steps: measured of each budget, and drafting of each length.
        temperature: of all requests.
        key: what the table is of, see `CostTable`.
    """
    num_requests = len(prompts)
    decoders = {}
    for verified in sorted({round(budget * num_requests) for budget in BUDGETS}):
        batch = Batch(
            prompts,
            # Nobody ends before the measurement does.
            (steps + 1) * (num_drafts + 1) + 1,
            num_drafts=num_drafts,
            sampling=Sampling(num_requests, temperature=temperature, device=model.device),
            device=model.device,
        )
        # A drafting model has a cache of one batch.
        policy = Tetris(verified / num_requests, num_drafts)
        decoders[num_requests + verified] = Decoder(model, batch, copy.copy(drafter), policy)
    for _ in range(steps + 1):
        # In turn, so that a machine that changes its speed does so for all of them.
        for decoder in decoders.values():
            decoder.step()
    # The first step of a decoder allocates.
    seconds = [median(step.seconds - step.draft_seconds for step in d.steps[1:]) for d in decoders.values()]
    drafts = list(decoders.values())[-1]
    drafting = [0.0, *(_drafting(drafts, length, steps) for length in range(1, num_drafts + 1))]
    return CostTable(
        key=key or {},
        tokens=tuple(decoders),
        seconds=tuple(np.maximum.accumulate(seconds).tolist()),
        draft_seconds=tuple(np.maximum.accumulate(drafting).tolist()),
    )


@torch.inference_mode()
def _drafting(decoder: Decoder, length: int, times: int) -> float:
    """Seconds of proposing `length` drafts for each request of a decoder that drafts, the median."""
    found = []
    for _ in range(times):
        began = perf_counter()
        propose(decoder.batch, decoder.drafter, length)
        found.append(perf_counter() - began)
    return median(found)
