"""The decoder on a GPU says what it says on the CPU. Skipped without a GPU."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from tiny_models import NEW_TOKENS, PROMPTS, VOCAB_SIZE, noisy_copy, random_prompts, target, transformers_generate

from tetris_decode.adaptive import Adaptive
from tetris_decode.decoder import generate
from tetris_decode.draft_model import ModelDrafter
from tetris_decode.drafting import Drafter
from tetris_decode.ngram import NgramDrafter
from tetris_decode.ngram_table import NgramTable
from tetris_decode.policies import NO_SPECULATION, Calibrated, FixedLength, Policy, Tetris, Threshold
from tetris_decode.profiling import measure_costs
from tetris_kernels import Calibration, CostTable

DEVICE = "cuda"
COSTS = CostTable({}, (1, 101), (1.0, 3.0), (0.0, 0.01, 0.02, 0.03, 0.04))
# A policy that learns is of one run.
POLICIES: dict[str, Callable[[], Policy]] = {
    "none": lambda: NO_SPECULATION,
    "fixed 4": lambda: FixedLength(4),
    "budget 0.6": lambda: Tetris(0.6, 4),
    "budget 2.6": lambda: Tetris(2.6, 6),
    "floors": lambda: Tetris(1, 4, min_lens=torch.tensor([0, 3, 1, 0, 9], device=DEVICE)),
    "threshold 0.4": lambda: Threshold(0.4, 4),
    "adaptive": lambda: Adaptive(COSTS, 4),
    "adaptive, calibrated": lambda: Calibrated(Adaptive(COSTS, 4), Calibration(4, device=DEVICE, warmup=4)),
    "adaptive, same step": lambda: Adaptive(COSTS, 4, same_step=True),
}
DRAFTERS: dict[str, Callable[[str], Drafter]] = {
    "model": lambda device: ModelDrafter(copy.deepcopy(noisy_copy()).to(device)),
    "n-grams": lambda device: NgramDrafter(NgramTable.count(random_prompts(400, seed=5), VOCAB_SIZE)),
}

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or ROCm GPU here")


@pytest.fixture(scope="module")
def model():
    return copy.deepcopy(target()).to(DEVICE)


@pytest.mark.parametrize("drafter", DRAFTERS.values(), ids=DRAFTERS)
@pytest.mark.parametrize("policy", POLICIES.values(), ids=POLICIES)
def test_greedy_output_is_that_of_transformers_generate(model, policy, drafter):
    run = generate(model, PROMPTS, NEW_TOKENS, drafter=drafter(DEVICE), policy=policy())
    assert run.outputs == transformers_generate(PROMPTS, NEW_TOKENS)


@pytest.mark.parametrize("policy", [NO_SPECULATION, FixedLength(3), Tetris(1, 4)], ids=str)
def test_requests_take_the_places_of_those_that_ended(model, policy):
    run = generate(model, PROMPTS, NEW_TOKENS, batch_size=2, drafter=DRAFTERS["model"](DEVICE), policy=policy)
    assert run.outputs == transformers_generate(PROMPTS, NEW_TOKENS)


@pytest.mark.parametrize("drafter", DRAFTERS.values(), ids=DRAFTERS)
@pytest.mark.parametrize("policy", [NO_SPECULATION, Tetris(1, 4)], ids=str)
def test_sampled_output_is_that_of_the_cpu(model, policy, drafter):
    """The random numbers are the host's; logits differ in their last bits, which hardly ever decides."""
    options = {"policy": policy, "temperature": [0.7, 0.0, 1.0, 1.3, 0.7], "top_p": 0.9}
    run = generate(model, PROMPTS, NEW_TOKENS, drafter=drafter(DEVICE), **options)
    assert run.outputs == generate(target(), PROMPTS, NEW_TOKENS, drafter=drafter("cpu"), **options).outputs


def test_costs_are_measured(model):
    costs = measure_costs(model, PROMPTS, DRAFTERS["model"](DEVICE), num_drafts=4, steps=3)
    assert costs.tokens[0] == len(PROMPTS) and min(costs.seconds) > 0 and costs.draft_seconds[1] > 0
