"""Measure what steps cost on this machine: the `CostTable` of a live model and drafter."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from statistics import median

import numpy as np
from transformers import PreTrainedModel

from tetris_decode.batch import Batch
from tetris_decode.costs import CostTable
from tetris_decode.decoder import Decoder
from tetris_decode.drafting import Drafter
from tetris_decode.policies import FixedLength
from tetris_decode.sampling import Sampling


def measure_costs(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    drafter: Drafter,
    *,
    length: int,
    steps: int = 5,
    temperature: float = 0.0,
    key: dict[str, str] | None = None,
) -> CostTable:
    """Steps of fixed lengths 0 to `length` in turn, all requests running: medians, by tokens in the batch.

    Points are multiples of the number of requests; below the first one, when requests have ended, the table says
    what a full batch costs. What noise makes fall is raised to what came before it.

    Args:
        prompts: a full batch of token ids, long enough to be typical.
        drafter: proposes the drafts.
        length: the longest that is measured.
        steps: measured steps of each length.
        temperature: of all requests.
        key: what the table is of, see `CostTable`.
    """
    longest = (steps + 1) * (length + 1) + 1
    decoders = []
    for k in range(length + 1):
        sampling = Sampling(len(prompts), temperature=temperature, device=model.device)
        batch = Batch(prompts, longest, num_drafts=k, sampling=sampling, device=model.device)
        # A drafting model has a cache of one batch.
        decoders.append(Decoder(model, batch, copy.copy(drafter), FixedLength(k)))
    for _ in range(steps + 1):
        # In turn, so that a machine that changes its speed does so for all of them.
        for decoder in decoders:
            decoder.step()
    # The first step of a decoder allocates.
    measured = [decoder.steps[1:] for decoder in decoders]
    seconds = [median(step.seconds - step.draft_seconds for step in of) for of in measured]
    drafting = [0.0, *(median(step.draft_seconds for step in of) for of in measured[1:])]
    return CostTable(
        key=key or {},
        tokens=tuple(len(prompts) * (k + 1) for k in range(length + 1)),
        seconds=tuple(np.maximum.accumulate(seconds).tolist()),
        draft_seconds=tuple(np.maximum.accumulate(drafting).tolist()),
    )
