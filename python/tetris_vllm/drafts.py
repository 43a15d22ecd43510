"""Drafts on their way from the worker to the scheduler, with their scores."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

from vllm.v1.outputs import DraftTokenIds

from tetris_vllm import recording


@dataclass
class ScoredDraftTokenIds(DraftTokenIds):
    """scores: [requests, drafts] float32 of numpy, a row for each of `req_ids`; None if none were recorded."""

    scores: Any = None


def attach_in(runner_class: Any) -> None:
    """Wrap `take_draft_token_ids` of a model runner: the drafts come with what `recording` has of them.

    vLLM waits there for the drafts on their way to the host; the scores were computed before these.
    """
    original = runner_class.take_draft_token_ids

    @functools.wraps(original)
    def take_draft_token_ids(self: Any) -> DraftTokenIds | None:
        drafts = original(self)
        recorded = recording.take(getattr(self, "drafter", None))
        if drafts is None or not recorded:
            return drafts
        lens = {len(ids) for ids in drafts.draft_token_ids}
        # Where logits were recorded, all requests have as many drafts.
        scores = recording.as_matrix(recorded, len(drafts.req_ids), lens.pop()) if len(lens) == 1 else None
        return ScoredDraftTokenIds(drafts.req_ids, drafts.draft_token_ids, scores)

    runner_class.take_draft_token_ids = take_draft_token_ids
