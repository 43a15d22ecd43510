"""Scores of drafts, recorded where vLLM's proposer draws them and handed over with the drafts themselves."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tetris_kernels import score

# Of a proposer: what was recorded since it was last taken, and by which score; None: by none.
RECORDED, KIND = "_tetris_recorded", "_tetris_kind"


def record_in(proposer_class: Any, kind_of: Callable[[Any], str | None]) -> None:
    """Wrap `_greedy_sample` and `_sample_from_logits`: they do what they did, and record a score of each draft.

    kind_of: of a proposer's `vllm_config`, "top" or "collision"; None to record nothing. Asked once for each proposer.
    """
    greedy, sample = proposer_class._greedy_sample, proposer_class._sample_from_logits

    @functools.wraps(greedy)
    def _greedy_sample(self: Any, hidden_states: Tensor) -> Any:
        kind = _kind(self, kind_of)
        if kind is None:
            return greedy(self, hidden_states)
        with _logits_of(self.model) as logits:
            drafts = greedy(self, hidden_states)
        # None were made where the model takes its argmax itself.
        if len(logits) == 1:
            _record(self, logits[0], kind, 1.0)
        return drafts

    @functools.wraps(sample)
    def _sample_from_logits(self: Any, logits: Tensor, sampling_metadata: Any) -> Any:
        kind = _kind(self, kind_of)
        if kind is not None:
            # Before, since vLLM scales the logits in place.
            _record(self, logits, kind, _temperature(sampling_metadata.temperature, logits))
        return sample(self, logits, sampling_metadata)

    proposer_class._greedy_sample = _greedy_sample
    proposer_class._sample_from_logits = _sample_from_logits


def take(proposer: Any) -> list[Tensor]:
    """What was recorded since the last call, in the order of the draft positions."""
    recorded: list[Tensor] = getattr(proposer, RECORDED, [])
    if recorded:
        setattr(proposer, RECORDED, [])
    return recorded


def as_matrix(recorded: list[Tensor], num_rows: int, num_drafts: int) -> Any:
    """The scores of `num_rows` requests with `num_drafts` drafts each, [N, K] float32 of numpy; None if they are not
    those of these drafts, such as where the drafter was left out.

    `recorded` are scores [N] of position after position, or, of a drafter that makes all at once, [N * K] in one. Waits
    for the device: to be called where the drafts were waited for.
    """
    if len(recorded) == 1 and recorded[0].shape[0] == num_rows * num_drafts:
        matrix = recorded[0].view(num_rows, num_drafts)
    elif len(recorded) == num_drafts and all(scores.shape[0] == num_rows for scores in recorded):
        matrix = torch.stack(recorded, dim=1)
    else:
        return None
    return np.ascontiguousarray(matrix.cpu().numpy())


def _kind(proposer: Any, kind_of: Callable[[Any], str | None]) -> str | None:
    if not hasattr(proposer, KIND):
        setattr(proposer, KIND, kind_of(proposer.vllm_config))
    kind: str | None = getattr(proposer, KIND)
    return kind


def _record(proposer: Any, logits: Tensor, kind: str, temperature: float | Tensor) -> None:
    # Both kinds are of the distribution alone; which token was drawn does not matter.
    any_ids = torch.zeros(logits.shape[0], 1, dtype=torch.int32, device=logits.device)
    scores = score(logits.unsqueeze(1), any_ids, kind=kind, temperature=temperature).squeeze(1)
    if not hasattr(proposer, RECORDED):
        setattr(proposer, RECORDED, [])
    getattr(proposer, RECORDED).append(scores)


def _temperature(temperature: Tensor | None, logits: Tensor) -> float | Tensor:
    """Of each row of logits, where several rows in a row are of one request; 1 where vLLM has none."""
    if temperature is None:
        return 1.0
    per_request = logits.shape[0] // max(temperature.shape[0], 1)
    return temperature.float().repeat_interleave(per_request) if per_request > 1 else temperature.float()


@contextmanager
def _logits_of(model: Any) -> Iterator[list[Tensor]]:
    """What the model's `compute_logits` returns meanwhile."""
    made: list[Tensor] = []
    compute_logits = model.compute_logits

    def computed(*args: Any, **options: Any) -> Any:
        logits = compute_logits(*args, **options)
        made.append(logits)
        return logits

    # On the instance, over the method of its class; vars() also where modules register what is set.
    own = vars(model).get("compute_logits")
    vars(model)["compute_logits"] = computed
    try:
        yield made
    finally:
        del vars(model)["compute_logits"]
        if own is not None:
            vars(model)["compute_logits"] = own
