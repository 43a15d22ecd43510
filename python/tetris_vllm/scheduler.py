"""vLLM's scheduler, which gives the budget's most promising drafts to the next step, and no others."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

import torch
from vllm.logger import init_logger
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.outputs import DraftTokenIds, ModelRunnerOutput

from tetris_kernels import CostTable
from tetris_vllm import rules
from tetris_vllm.choosing import Chooser
from tetris_vllm.counters import Counters
from tetris_vllm.settings import Settings, for_engine

# Below vLLM's own loggers, so that it is configured with them.
logger = init_logger("vllm.tetris_vllm.scheduler")


class TetrisScheduler(Scheduler):
    """Lengths are decided where drafts arrive, so that only requests that go on take part, by drafts that vLLM would
    verify: those that a grammar forbids are gone, and those behind a request's last token do not count. Without
    speculation nothing differs.
    """

    dynamic_sd_lookup: list[int] | None  # vLLM's own

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        how = rules.drafting(self.vllm_config)
        self._tetris: Chooser | None = None
        if how is not None and not rules.selects_itself(self.vllm_config):
            settings = for_engine(os.environ, self.vllm_config.additional_config)
            kind = rules.score_kind(settings.score, how)
            self._tetris_lacks_scores = kind != "history" and settings.budget.kind != "all"
            self._tetris = Chooser(settings, how.length, _costs(settings))
            self._tetris_counters = Counters.create(
                str(self.vllm_config.model_config.served_model_name),
                str(self.vllm_config.parallel_config.data_parallel_index),
            )
            if settings.budget.kind != "all" and self.dynamic_sd_lookup is None:
                # Where drafts do not go by the number of requests, vLLM pads those that join with one token to the
                # length of all drafts, for a graph: in steps of a budget these would be beyond it. So they do go by it,
                # and are as many for each.
                self.dynamic_sd_lookup = [self.num_spec_tokens] * (self.max_num_running_reqs + 1)
            logger.info("tetris_vllm: %s drafts by %s, %s", how.method, kind, settings)

    def update_draft_token_ids(self, draft_token_ids: DraftTokenIds) -> None:
        super().update_draft_token_ids(draft_token_ids)
        if self._tetris is not None:
            self._tetris_trim(self._tetris, draft_token_ids)

    def update_from_output(self, scheduler_output: SchedulerOutput, model_runner_output: ModelRunnerOutput) -> Any:
        # Before vLLM does, since it forgets the requests that end.
        if self._tetris is not None:
            self._tetris_observe(self._tetris, scheduler_output, model_runner_output)
        return super().update_from_output(scheduler_output, model_runner_output)

    def _tetris_trim(self, chooser: Chooser, drafts: DraftTokenIds) -> None:
        start = time.perf_counter()
        rows, decoding = [], []
        for row, name in enumerate(drafts.req_ids):
            request = self.requests.get(name)
            if request is not None and not request.is_finished() and not request.is_prefill_chunk:
                rows.append(row)
                decoding.append(request)
        taking_part = {request.request_id for request in decoding}
        # Chosen in an earlier step that had no room for the request.
        held = [r for r in self.running if r.spec_token_ids and r.request_id not in taking_part]
        made = [_num_drafts(r.spec_token_ids) for r in decoding]
        usable = [min(n, self._tetris_room(r)) for n, r in zip(made, decoding, strict=True)]
        scores = getattr(drafts, "scores", None)
        if self._tetris_lacks_scores and any(usable):
            self._tetris_lacks_scores = False
            if scores is None:
                logger.warning("tetris_vllm: drafts came without scores of their logits, so they go by history")
        choice = chooser.choose(
            [request.request_id for request in decoding],
            usable,
            None if scores is None else torch.from_numpy(scores)[rows],
            held=[len(r.spec_token_ids) for r in held],
        )
        proposed = allowed = sum(made)
        if choice is not None:
            for request, length in zip(decoding + held, choice.lens + choice.held, strict=True):
                if length < len(request.spec_token_ids):
                    request.spec_token_ids = request.spec_token_ids[:length]
            allowed = min(choice.budget - sum(choice.held), proposed)
        self._tetris_counters.add(
            steps=1 if proposed else 0, proposed=proposed, budget=allowed, seconds=time.perf_counter() - start
        )

    def _tetris_room(self, request: Any) -> int:
        """How many drafts can be of use: with all of them accepted, one token more ends the request."""
        tokens: int = min(request.max_tokens - request.num_output_tokens, self.max_model_len - request.num_tokens)
        return max(tokens - 1, 0)

    def _tetris_observe(self, chooser: Chooser, scheduled: SchedulerOutput, output: ModelRunnerOutput) -> None:
        start = time.perf_counter()
        verified = accepted = 0
        for name in scheduled.num_scheduled_tokens:
            row = output.req_id_to_index.get(name)
            emitted = len(output.sampled_token_ids[row]) if row is not None and output.sampled_token_ids else 0
            # Nothing comes of a part of a prompt.
            if emitted:
                drafts = _num_drafts(scheduled.scheduled_spec_decode_tokens.get(name, ()))
                chooser.history.observe(name, drafts, emitted - 1)
                verified += drafts
                accepted += emitted - 1
        chooser.history.keep(self.requests)
        self._tetris_counters.add(verified=verified, accepted=accepted, seconds=time.perf_counter() - start)


def _num_drafts(token_ids: Sequence[int]) -> int:
    """Those before the first -1, with which vLLM fills up."""
    return next((i for i, token in enumerate(token_ids) if token < 0), len(token_ids))


def _costs(settings: Settings) -> CostTable | None:
    if settings.budget.kind != "adaptive" or settings.costs is None:
        return None
    table = CostTable.load(settings.costs)
    logger.info("tetris_vllm: costs of %s", dict(table.key))
    return table
