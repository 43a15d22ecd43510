"""Too little memory and too little room in a step: requests are preempted, prompts are read in parts, and drafts wait
for a step that has room for them. Greedy, the output stays that of no speculation; `engines.budget` checks each step.
"""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
from engines import METHODS, K, budget, counting, engine, generate, scheduler_of, some_prompts
from vllm import LLM, SamplingParams

from tetris_vllm.settings import Budget, Settings

RNG = random.Random(5)
PROMPTS = some_prompts(5, *[RNG.randrange(1, 60) for _ in range(16)])
LENS = [RNG.randrange(20, 90) for _ in PROMPTS]


@pytest.fixture(scope="module")
def expected(folders) -> list[list[int]]:
    with engine(folders, None) as plain:
        return generate(plain, PROMPTS, LENS)


@pytest.fixture(scope="module", params=METHODS)
def llm(folders, request, expected) -> Iterator[LLM]:
    # After the engine that says what is expected: a process has one at a time set up. 16 blocks of 32 tokens are 512,
    # where all requests together need up to 2,000 in the end.
    few = {"block_size": 32, "num_gpu_blocks_override": 16, "max_num_batched_tokens": 40}
    with engine(folders, request.param, settings={"budget": 64}, **few) as made:
        yield made


@pytest.mark.parametrize(("kind", "amount"), [("absolute", 64), ("absolute", 10), ("per request", 1.0)])
def test_output_and_budget(llm, expected, monkeypatch, kind, amount):
    scheduler, preempted, parts = scheduler_of(llm), [], []
    preempt, update = scheduler._preempt_request, scheduler.update_from_output

    def noted_preempt(request, *args, **options):
        preempted.append(request.request_id)
        return preempt(request, *args, **options)

    def noted_update(*args):
        parts.append(sum(request.is_prefill_chunk for request in scheduler.running))
        return update(*args)

    with budget(llm, kind, amount) as verified:
        monkeypatch.setattr(scheduler, "_preempt_request", noted_preempt)
        monkeypatch.setattr(scheduler, "update_from_output", noted_update)
        with counting() as counts:
            assert generate(llm, PROMPTS, LENS) == expected
    assert preempted and sum(parts) > 0
    assert sum(verified) == counts["verified"] > 20


def test_a_budget_that_falls_cuts_drafts_that_wait(llm, expected):
    """16 requests with four drafts each have no room in 40 tokens, so that the drafts of some wait."""
    engine_, outputs, held = llm.llm_engine, {}, []
    with budget(llm, "absolute", 64) as verified:
        scheduler = scheduler_of(llm)
        for i, (prompt, tokens) in enumerate(zip(PROMPTS, LENS, strict=True)):
            params = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True, detokenize=False)
            engine_.add_request(f"request {i}", {"prompt_token_ids": prompt}, params)
        step = 0
        while engine_.has_unfinished_requests():
            # From 64 to 1 and back, every other step.
            scheduler._tetris.settings = Settings(Budget("absolute", 1 if step % 2 else 64))
            for output in engine_.step():
                outputs[output.request_id] = list(output.outputs[0].token_ids)
            held.append(sum(len(request.spec_token_ids) for request in scheduler.running))
            step += 1
    assert [outputs[f"request {i}"] for i in range(len(PROMPTS))] == expected
    # By twos: many drafts, then one at most, though not all of the many had room.
    assert max(verified) > K
    assert max(held[1::2]) <= 1 < max(held[::2])
