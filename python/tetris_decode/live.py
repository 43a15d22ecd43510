"""Decoding under several policies: in turn, measured, and compared with the texts of plain decoding."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from tetris_decode.decoder import Generation
from tetris_decode.metrics import Metrics
from tetris_decode.policies import Policy


class Difference(NamedTuple):
    """Where an output first departs from plain decoding: the request, the new token, and how close a call it was.

    logit_gap: the target's logit of plain decoding's token less that of the other, each rounded to the model's
    dtype, in a forward of its own over the text they share. Near 0 where rounding decides.
    logit: the larger of the two; bfloat16 has 8 significant bits of it.
    """

    request: int
    token: int
    logit_gap: float
    logit: float


@dataclass(frozen=True)
class Measurement:
    """One policy on one set of prompts, decoded once or more.

    metrics:     of one run: of several, that of median throughput (of an even number, the slower of the two).
    outputs:     generated tokens of each request, in the first run.
    differences: requests whose output is not that of plain decoding; None where texts are sampled.
    """

    name: str
    metrics: Metrics
    outputs: list[list[int]]
    differences: list[Difference] | None


def decode_in_turn(
    policies: dict[str, Policy], rounds: int, decode: Callable[[str, Policy], Generation]
) -> Iterator[tuple[str, Generation]]:
    """Each policy in turn, `rounds` times over, so that a slow minute of the machine is nobody's in particular."""
    for _ in range(rounds):
        for name, policy in policies.items():
            yield name, decode(name, policy)


def median_run(runs: Sequence[Generation]) -> Metrics:
    """That of median throughput; of an even number, the slower of the two in the middle."""
    measured = sorted((Metrics.of(run.steps, run.requests) for run in runs), key=lambda metrics: metrics.throughput)
    return measured[(len(measured) - 1) // 2]


@torch.inference_mode()
def differences(
    model: PreTrainedModel, prompts: Sequence[Sequence[int]], plain: list[list[int]], outputs: list[list[int]]
) -> list[Difference]:
    """The requests whose output is not that of plain decoding.

    Raises:
        ValueError: an output that stops within the other's text, which greedy decoding never does.
    """
    found = []
    for request, (prompt, expected, got) in enumerate(zip(prompts, plain, outputs, strict=True)):
        if expected == got:
            continue
        at = next((i for i, (a, b) in enumerate(zip(expected, got, strict=False)) if a != b), None)
        if at is None:
            raise ValueError(f"outputs: expected a text of {len(expected)} tokens, got {len(got)} of the same")
        shared = torch.tensor([[*prompt, *expected[:at]]], device=model.device)
        logits = model(input_ids=shared, use_cache=False, logits_to_keep=1).logits[0, -1].float()
        ours, other = logits[expected[at]].item(), logits[got[at]].item()
        found.append(Difference(request, at, ours - other, max(ours, other)))
    return found
