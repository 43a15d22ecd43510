"""Engines for tests, in this process or in one of their own, and what they have done."""

from __future__ import annotations

import gc
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from tiny_checkpoints import VOCABULARY
from vllm import LLM, SamplingParams
from vllm.distributed import cleanup_dist_env_and_memory

from tetris_kernels import CostTable
from tetris_vllm import counters
from tetris_vllm.choosing import Chooser
from tetris_vllm.settings import COUNTERS, Budget, Settings

K = 4
METHODS = ("draft_model", "eagle", "ngram")


def some_prompts(seed: int, *lens: int) -> list[list[int]]:
    rng = random.Random(seed)
    # The second half repeats the first, for drafts that come from the text.
    halves = [[rng.randrange(VOCABULARY) for _ in range((n + 1) // 2)] for n in lens]
    return [(half + half)[:n] for half, n in zip(halves, lens, strict=True)]


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


@contextmanager
def budget(llm: LLM, kind: str, amount: float = 0, costs: CostTable | None = None, **settings: Any) -> Iterator[Any]:
    """Decode under another budget; the drafts that each step verifies.

    Each step is checked: it verifies no more than its budget, the scores that the chooser gets are those that came for
    the request, and no more drafts of it count as usable than its last token allows.
    """
    scheduler, chooser, verified = scheduler_of(llm), Chooser(Settings(Budget(kind, amount), **settings), K, costs), []
    schedule, update, choose = scheduler.schedule, scheduler.update_draft_token_ids, chooser.choose
    arrived, allowed = None, None

    def noted_schedule(*args: Any) -> Any:
        output = schedule(*args)
        verified.append(sum(map(len, output.scheduled_spec_decode_tokens.values())))
        assert allowed is None or verified[-1] <= allowed
        return output

    def noted_update(drafts: Any) -> None:
        nonlocal arrived
        arrived = drafts
        update(drafts)

    def checked_choose(names: Sequence[str], usable: Sequence[int], scores: Any = None, **options: Any) -> Any:
        nonlocal allowed
        for i, (name, num_drafts) in enumerate(zip(names, usable, strict=True)):
            request = scheduler.requests[name]
            assert num_drafts <= max(request.max_tokens - request.num_output_tokens - 1, 0)
            if scores is not None:
                assert (scores[i].numpy() == arrived.scores[arrived.req_ids.index(name)]).all()
        choice = choose(names, usable, scores, **options)
        allowed = None if choice is None else choice.budget
        return choice

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chooser, "choose", checked_choose)
        patch.setattr(scheduler, "_tetris", chooser)
        patch.setattr(scheduler, "schedule", noted_schedule)
        patch.setattr(scheduler, "update_draft_token_ids", noted_update)
        yield verified
