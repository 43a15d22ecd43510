"""Greedy decoding in the real engine: whatever is verified, the output is that of no speculation."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from engines import METHODS, K, budget, counting, engine, generate, scheduler_of, some_prompts
from transformers import LlamaForCausalLM
from vllm import LLM, SamplingParams
from vllm.sampling_params import StructuredOutputsParams

from tetris_kernels import CostTable
from tetris_vllm.scheduler import TetrisScheduler

TOKENS = 40
PROMPTS = some_prompts(0, 5, 1, 9, 20, 3, 40, 8, 2)


@pytest.fixture(scope="module")
def plain(folders) -> LLM:
    with engine(folders, None) as llm:
        yield llm


@pytest.fixture(scope="module")
def expected(plain) -> list[list[int]]:
    return generate(plain, PROMPTS, TOKENS)


@pytest.fixture(scope="module", params=METHODS)
def llm(folders, request) -> Iterator[LLM]:
    with engine(folders, request.param, settings={"budget": 64}) as made:
        yield made


@pytest.mark.parametrize("amount", [64, 32, 16, 8, 4, 1, 0])
def test_output_and_budget(llm, expected, amount):
    with counting() as counts, budget(llm, "absolute", amount) as verified:
        assert generate(llm, PROMPTS, TOKENS) == expected
    assert max(verified) <= amount
    assert sum(verified) == counts["verified"] <= counts["budget"] <= counts["proposed"]
    assert counts["accepted"] <= counts["verified"]
    assert len(PROMPTS) * TOKENS > counts["accepted"]
    if amount >= 8:
        assert counts["accepted"] > 20  # else little was tested
    if 0 < amount <= 4:
        # Most steps have more to choose from than that.
        assert sum(n == amount for n in verified) > len(verified) / 4


def test_everything_is_what_vllm_does_by_itself(llm, expected):
    with counting() as everything, budget(llm, "all") as verified:
        assert generate(llm, PROMPTS, TOKENS) == expected
    with budget(llm, "all") as by_itself, pytest.MonkeyPatch.context() as patch:
        patch.setattr(scheduler_of(llm), "_tetris", None)
        assert generate(llm, PROMPTS, TOKENS) == expected
    assert verified == by_itself
    assert sum(verified) == everything["verified"] > 0


def test_scores_are_those_of_the_drafter(llm, folders, expected):
    """Of each draft the largest log-prob at its place, by transformers; n-grams have none."""
    scheduler, seen = scheduler_of(llm), []

    def noted(drafts):
        texts = {name: list(request.all_token_ids) for name, request in scheduler.requests.items()}
        seen.append((getattr(drafts, "scores", None), drafts, texts))
        update(drafts)

    with budget(llm, "absolute", 8), pytest.MonkeyPatch.context() as patch:
        update = scheduler.update_draft_token_ids
        patch.setattr(scheduler, "update_draft_token_ids", noted)
        assert generate(llm, PROMPTS, TOKENS) == expected
    method = llm.llm_engine.vllm_config.speculative_config.method
    if method == "ngram":
        assert all(scores is None for scores, *_ in seen)
        return
    assert all(scores.shape == (len(drafts.req_ids), K) and (scores <= 0).all() for scores, drafts, _ in seen)
    if method == "draft_model":
        drafter = LlamaForCausalLM.from_pretrained(folders[method]).float()
        for scores, drafts, texts in seen[1:12]:
            for name, ids, row in zip(drafts.req_ids, drafts.draft_token_ids, scores, strict=True):
                if name in texts:
                    with torch.inference_mode():
                        logits = drafter(torch.tensor([texts[name] + ids])).logits[0, -K - 1 : -1]
                    assert row == pytest.approx(logits.log_softmax(-1).amax(-1).numpy(), abs=1e-3)


@pytest.mark.parametrize(
    "settings",
    [
        {"kind": "per request", "amount": 1.5},
        {"kind": "per request", "amount": 0.5, "min_drafts": 1},
        {"kind": "absolute", "amount": 6, "min_batch": 4},
        {"kind": "adaptive", "costs": CostTable({}, (1, 16, 64), (1.0, 1.2, 4.0), (0.0, 0.1, 0.2, 0.3, 0.4))},
    ],
    ids=["per request", "floor", "min_batch", "adaptive"],
)
def test_other_budgets(llm, expected, settings):
    with budget(llm, **settings) as verified:
        assert generate(llm, PROMPTS, TOKENS) == expected
    # All that there are would be four of each.
    assert 0 < max(verified) < len(PROMPTS) * K


def test_requests_of_different_lengths(llm, plain):
    lens = [1, 2, 3, 5, 8, 13, 21, 34]
    with budget(llm, "absolute", 7) as verified:
        outputs = generate(llm, PROMPTS, lens)
    assert outputs == generate(plain, PROMPTS, lens)
    assert list(map(len, outputs)) == lens
    assert max(verified) <= 7


def test_more_requests_than_places(llm, plain):
    prompts = some_prompts(1, *range(1, 41))
    with budget(llm, "absolute", 9) as verified:
        assert generate(llm, prompts, 12) == generate(plain, prompts, 12)
    assert max(verified) == 9


def test_requests_that_have_ended_are_forgotten(llm):
    with budget(llm, "absolute", 9):
        generate(llm, some_prompts(3, *[5] * 300), 3)
        history = scheduler_of(llm)._tetris.history
        assert 0 < len(history._requests) < 150


def test_requests_that_reach_the_model_length(llm, plain):
    prompts = some_prompts(2, 250, 255, 240, 3)
    with budget(llm, "absolute", 5) as verified:
        outputs = generate(llm, prompts, TOKENS)
    assert outputs == generate(plain, prompts, TOKENS)
    assert max(verified) > 0
    assert [len(output) for output in outputs] == [6, 1, 16, TOKENS]


def test_aborted_requests(llm, expected):
    """Those that stay are not disturbed, and what is aborted leaves nothing behind."""
    engine_, outputs = llm.llm_engine, {}
    with budget(llm, "absolute", 6) as verified:
        for i, prompt in enumerate(PROMPTS):
            params = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True, detokenize=False)
            engine_.add_request(f"request {i}", {"prompt_token_ids": prompt}, params)
        for step in range(200):
            if step == 4:
                engine_.abort_request(["request 1", "request 6"])
            for output in engine_.step():
                outputs[output.request_id] = list(output.outputs[0].token_ids)
            if not engine_.has_unfinished_requests():
                break
    for i, text in enumerate(expected):
        if i not in (1, 6):
            assert outputs[f"request {i}"] == text
    assert max(verified) <= 6
    assert scheduler_of(llm).requests == {}


@pytest.mark.parametrize("amount", [0, 3])
def test_requests_that_join_with_one_token(llm, plain, amount):
    """vLLM would pad them to the length of all drafts, beyond any budget."""
    engine_, outputs = llm.llm_engine, {}
    params = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True, detokenize=False)
    prompts = [*PROMPTS[:2], [7], [9], [11]]
    with counting() as counts, budget(llm, "absolute", amount) as verified:
        for step in range(100):
            for i in {0: (0, 1), 3: (2, 3, 4)}.get(step, ()):
                engine_.add_request(f"request {i}", {"prompt_token_ids": prompts[i]}, params)
            for output in engine_.step():
                outputs[output.request_id] = list(output.outputs[0].token_ids)
            if not engine_.has_unfinished_requests():
                break
    assert [outputs[f"request {i}"] for i in range(5)] == generate(plain, prompts, 12)
    assert max(verified) <= amount
    assert sum(verified) == counts["verified"] <= counts["budget"]


def test_logprobs(llm, plain):
    def with_logprobs(made):
        params = SamplingParams(temperature=0, max_tokens=10, logprobs=2, ignore_eos=True, detokenize=False)
        outputs = made.generate([{"prompt_token_ids": prompt} for prompt in PROMPTS], params, use_tqdm=False)
        return [[{t: p.logprob for t, p in step.items()} for step in o.outputs[0].logprobs] for o in outputs]

    with budget(llm, "absolute", 6) as verified:
        found = with_logprobs(llm)
    assert max(verified) > 0
    for mine, theirs in zip(found, with_logprobs(plain), strict=True):
        for left, right in zip(mine, theirs, strict=True):
            assert left == pytest.approx(right, abs=1e-4)


@pytest.mark.parametrize("regex", [r"[a-zA-Z ]{30,60}", r"([a-f]|[n-z]){5,50}[.][0-9]{3}", r"(.|\n){40}"])
def test_structured_output(llm, plain, regex):
    """Grammars that let some drafts through, and every fourth request without one."""

    def texts(made):
        free = {"temperature": 0, "max_tokens": TOKENS}
        bound = free | {"structured_outputs": StructuredOutputsParams(regex=regex)}
        params = [SamplingParams(**(bound if i % 4 else free | {"ignore_eos": True})) for i in range(len(PROMPTS))]
        outputs = made.generate([{"prompt_token_ids": prompt} for prompt in PROMPTS], params, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    with counting() as counts, budget(llm, "absolute", 6) as verified:
        found = texts(llm)
    assert found == texts(plain)
    assert counts["verified"] == sum(verified) > 20 and max(verified) == 6


def test_the_scheduler_is_ours(llm):
    assert type(scheduler_of(llm)) is TetrisScheduler
