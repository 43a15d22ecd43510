"""The entry point that vLLM calls once in each of its processes (group `vllm.general_plugins`)."""

from __future__ import annotations

import functools
import logging
import os
from typing import Any

from tetris_vllm import counters, recording, rules, seams
from tetris_vllm.settings import SWITCH, for_engine, from_environment

# Below vLLM's own loggers, so that it is configured with them.
logger = logging.getLogger("vllm.tetris_vllm")
_PATCHED = "_tetris_patched"


def register() -> None:
    """Without TETRIS_VLLM_BUDGET nothing of vLLM is touched. With it vLLM's default scheduler is replaced, and workers
    record scores, if this vLLM has all the places for it; else one line is logged and nothing is touched.

    Raises:
        ValueError: settings that are wrong.
    """
    if from_environment(os.environ) is None:
        return
    if missing := seams.missing():
        places = "; ".join(map(str, missing))
        logger.warning(
            "tetris_vllm: vLLM %s is not supported, so nothing is changed. It does not have %s", seams.version(), places
        )
        return
    from vllm.config.scheduler import SchedulerConfig
    from vllm.v1.worker.worker_base import WorkerWrapperBase

    if hasattr(SchedulerConfig, _PATCHED):
        return
    setattr(SchedulerConfig, _PATCHED, True)
    counters.expose()
    _replace_scheduler_in(SchedulerConfig)
    _prepare_workers_in(WorkerWrapperBase)
    logger.info("tetris_vllm: %s=%s", SWITCH, os.environ[SWITCH])


def _replace_scheduler_in(config_class: Any) -> None:
    original = config_class.get_scheduler_cls

    @functools.wraps(original)
    def get_scheduler_cls(self: Any) -> Any:
        from vllm.v1.core.sched.scheduler import Scheduler

        from tetris_vllm.scheduler import TetrisScheduler

        chosen = original(self)
        # Anything else has been refused, unless the engine does not speculate.
        return TetrisScheduler if chosen is Scheduler else chosen

    config_class.get_scheduler_cls = get_scheduler_cls


def _prepare_workers_in(worker_class: Any) -> None:
    original = worker_class.init_device

    @functools.wraps(original)
    def init_device(self: Any) -> Any:
        # Before models are loaded, so that what is wrong is said at once.
        prepare_worker(self.vllm_config)
        return original(self)

    worker_class.init_device = init_device


def prepare_worker(vllm_config: Any) -> None:
    """Check what is asked of an engine that speculates, and wrap the classes of its drafter and model runner, once.

    Raises:
        ValueError, TypeError: as `rules` and `settings.for_engine`.
    """
    how = rules.drafting(vllm_config)
    if how is None:
        logger.info("tetris_vllm: no speculative decoding here, nothing to do")
        return
    rules.require_supported(vllm_config)
    if rules.selects_itself(vllm_config):
        _prepare_v2(vllm_config)
        return
    kind_of(vllm_config)

    from vllm.v1.spec_decode.llm_base_proposer import SpecDecodeBaseProposer
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner

    from tetris_vllm import drafts

    if not hasattr(SpecDecodeBaseProposer, _PATCHED):
        setattr(SpecDecodeBaseProposer, _PATCHED, True)
        recording.record_in(SpecDecodeBaseProposer, kind_of)
        drafts.attach_in(GPUModelRunner)


def _prepare_v2(vllm_config: Any) -> None:
    if missing := seams.missing(seams.SEAMS_V2):
        places = "; ".join(map(str, missing))
        logger.warning(
            "tetris_vllm: adaptive verification is left as it is. vLLM %s does not have %s", seams.version(), places
        )
        return
    from vllm.v1.worker.gpu.spec_decode import adaptive_verification

    from tetris_vllm import model_runner_v2

    if not hasattr(adaptive_verification, _PATCHED):
        setattr(adaptive_verification, _PATCHED, True)
        budget = for_engine(os.environ, vllm_config.additional_config).budget
        model_runner_v2.install(adaptive_verification, budget)
        logger.info("tetris_vllm: adaptive verification selects by tetris_kernels, %s", budget)


def kind_of(vllm_config: Any) -> str | None:
    """The score of logits that is recorded in an engine, "top" or "collision", or None.

    Raises:
        ValueError, TypeError: settings that are wrong, or that bias what the engine samples.
    """
    how = rules.drafting(vllm_config)
    if how is None:
        return None
    settings = for_engine(os.environ, vllm_config.additional_config)
    kind = rules.score_kind(settings.score, how)
    return None if kind == "history" or settings.budget.kind == "all" else kind
