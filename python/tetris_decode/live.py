"""Decode real prompts under several policies, measure, and compare the texts with plain decoding."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple

import torch
from transformers import PreTrainedModel

from tetris_decode.decoder import Generation, generate
from tetris_decode.drafting import Drafter
from tetris_decode.metrics import Step
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
    """One policy on one batch of prompts, decoded once or more.

    tokens_per_second:      generated tokens by the time of all steps, reading the prompts not counted; the median run.
    tokens_per_verification: tokens per request and step; 1 without speculation.
    step_seconds:           time of a step, the median of all.
    drafted, verified, accepted: drafts, in all, in one run.
    select_share, draft_share: of the time of all steps; the median run.
    outputs:                generated tokens of each request.
    differences:            requests whose output is not that of the first policy.
    """

    name: str
    tokens_per_second: float
    tokens_per_verification: float
    step_seconds: float
    drafted: int
    verified: int
    accepted: int
    select_share: float
    draft_share: float
    outputs: list[list[int]]
    differences: list[Difference]


def measure(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    max_new_tokens: int,
    policies: dict[str, Policy],
    drafter: Drafter,
    *,
    eos_token_id: int | Sequence[int] | None,
    rounds: int = 1,
    on_step: Callable[[str, Step], None] | None = None,
) -> list[Measurement]:
    """Decode `prompts` under each policy in turn, `rounds` times over, the first policy being plain decoding."""
    runs: dict[str, list[Generation]] = {name: [] for name in policies}
    for _ in range(rounds):
        for name, policy in policies.items():
            report = None if on_step is None else lambda step, name=name: on_step(name, step)
            runs[name].append(
                generate(
                    model,
                    prompts,
                    max_new_tokens,
                    drafter=drafter,
                    policy=policy,
                    eos_token_id=eos_token_id,
                    on_step=report,
                )
            )
    plain = next(iter(runs.values()))[0].outputs
    return [_measurement(name, of, differences(model, prompts, plain, of[0].outputs)) for name, of in runs.items()]


def _measurement(name: str, runs: list[Generation], different: list[Difference]) -> Measurement:
    # Greedy decoding of the same prompts: what was decoded is the same in every run, only the time is not.
    steps = runs[0].steps
    emitted = sum(step.emitted for step in steps)
    seconds = [sum(step.seconds for step in run.steps) for run in runs]
    selecting = [sum(step.select_seconds for step in run.steps) for run in runs]
    drafting = [sum(step.draft_seconds for step in run.steps) for run in runs]
    return Measurement(
        name=name,
        tokens_per_second=emitted / median(seconds),
        tokens_per_verification=emitted / sum(step.requests for step in steps),
        step_seconds=median(step.seconds for run in runs for step in run.steps),
        drafted=sum(step.drafted for step in steps),
        verified=sum(step.verified for step in steps),
        accepted=sum(step.accepted for step in steps),
        select_share=median(part / whole for part, whole in zip(selecting, seconds, strict=True)),
        draft_share=median(part / whole for part, whole in zip(drafting, seconds, strict=True)),
        outputs=runs[0].outputs,
        differences=different,
    )


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
