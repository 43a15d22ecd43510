"""A target of four tokens whose law of whole texts is known, a drafter that is like it, and the test of texts."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Sequence
from functools import cache

import torch
from tiny_models import SHAPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedModel, TopPLogitsWarper

from tetris_decode.goodness import fit

VOCAB = 4
LENGTH = 5  # tokens whose joint law is compared: 1024 texts. Enough that second drafts are tested
REQUESTS = 6000
PROMPT = (1, 3, 2)
# Seeds are fixed, so a test passes always or never; of 100 right ones, none falls below by chance.
LEVEL = 1e-4


@cache
def models() -> tuple[PreTrainedModel, PreTrainedModel]:
    """A target, and a drafter that is like it."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(3)
        shape = SHAPE | {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2}
        target = LlamaForCausalLM(LlamaConfig(**shape)).eval()
        target.lm_head.weight *= 1.5
        drafter = copy.deepcopy(target)
        drafter.lm_head.weight += 0.1 * torch.randn_like(drafter.lm_head.weight)
    return target, drafter


@torch.inference_mode()
def exact_law(temperature: float, top_p: float = 1.0, prompt: Sequence[int] = PROMPT) -> torch.Tensor:
    """[VOCAB ** LENGTH] float64: the probability of each text, by the model alone."""
    law = torch.ones(1, dtype=torch.float64)
    for length in range(LENGTH):
        prefixes = torch.tensor([[*prompt, *text] for text in itertools.product(range(VOCAB), repeat=length)])
        scaled = models()[0](prefixes, use_cache=False).logits[:, -1].float() / temperature
        kept = TopPLogitsWarper(top_p)(None, scaled) if top_p < 1 else scaled
        law = (law[:, None] * kept.double().softmax(-1)).flatten()
    return law


def p_value(outputs: list[list[int]], law: torch.Tensor) -> float:
    """Of the chi-square test of the texts against their law."""
    return fit(codes(outputs).bincount(minlength=len(law)), law).p_value


def codes(texts: list[list[int]]) -> torch.Tensor:
    """[len(texts)]: where the law has each text."""
    return (torch.tensor(texts) * VOCAB ** torch.arange(len(texts[0]) - 1, -1, -1)).sum(1)
