"""Engines for tests, in this process or in one of their own, and what they have done."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory

from tetris_vllm import counters
from tetris_vllm.settings import COUNTERS

K = 4


def speculation(method: str | None, folders: dict[str, str], num_drafts: int = K) -> dict[str, Any] | None:
    if method is None:
        return None
    common = {"method": method, "num_speculative_tokens": num_drafts}
    if method == "ngram":
        return common | {"prompt_lookup_max": 3, "prompt_lookup_min": 1}
    return common | {"model": folders[method]}


@contextmanager
def engine(folders: dict[str, str], method: str | None, *, settings: Any = None, **options: Any) -> Iterator[LLM]:
    """One that speculates with `method` (None: not at all), with these settings of its own for the plugin."""
    speculative = speculation(method, folders)
    more = options.pop("speculative", {})
    if speculative is not None:
        speculative |= more
    llm = LLM(
        model=folders["target"],
        speculative_config=speculative,
        dtype="float32",
        max_model_len=options.pop("max_model_len", 256),
        max_num_seqs=options.pop("max_num_seqs", 16),
        enforce_eager=True,
        seed=0,
        additional_config={"tetris": settings} if settings else {},
        disable_log_stats=False,
        **options,
    )
    try:
        yield llm
    finally:
        llm.llm_engine.engine_core.shutdown()
        del llm
        gc.collect()
        cleanup_dist_env_and_memory()


def generate(llm: LLM, prompts: Sequence[list[int]], tokens: int | Sequence[int], **sampling: Any) -> list[list[int]]:
    """Token ids; greedy unless told otherwise; `tokens` at most, of each."""
    lens = [tokens] * len(prompts) if isinstance(tokens, int) else tokens
    options = {"temperature": 0.0, "ignore_eos": True, "detokenize": False} | sampling
    params = [SamplingParams(max_tokens=n, **options) for n in lens]
    outputs = llm.generate([{"prompt_token_ids": prompt} for prompt in prompts], params, use_tqdm=False)
    return [list(output.outputs[0].token_ids) for output in outputs]


def scheduler_of(llm: LLM) -> Any:
    """Of an engine in this process."""
    return llm.llm_engine.engine_core.engine_core.scheduler


def counted() -> dict[str, float]:
    """The plugin's counters, of all engines so far."""
    totals = dict.fromkeys(counters.NAMES, 0.0)
    if COUNTERS in os.environ:
        for sums in counters.read(Path(os.environ[COUNTERS])).values():
            totals = {name: total + sums[name] for name, total in totals.items()}
    return totals


@contextmanager
def counting() -> Iterator[dict[str, float]]:
    """What was counted meanwhile, filled in at the end."""
    before, during = counted(), {}
    yield during
    during.update({name: total - before[name] for name, total in counted().items()})
