"""Sampled decoding in the real engine: whole texts have the law of the target, which is known exactly."""

from __future__ import annotations

import math

import pytest
import torch
from engines import counting, engine, generate
from tiny_checkpoints import LAW_LENGTH, LAW_VOCABULARY, PROMPT
from vllm.platforms import current_platform
from vllm.v1.sample import rejection_sampler

from tetris_vllm import recording, rules

REQUESTS = 6_000
# Seeds are fixed, so a test passes always or never; of 100 right ones, none falls below by chance.
LEVEL = 1e-4


def expand_batch_to_tokens(x, cu_num_tokens, num_tokens, replace_from=0, replace_to=0):
    """What vLLM's function of this name means: each request's value for each of its drafts."""
    lens = cu_num_tokens.diff(prepend=cu_num_tokens.new_zeros(1))
    return torch.where(x == replace_from, replace_to, x).to(x.dtype).repeat_interleave(lens.long())


def test_vllm_for_cpus_needs_the_repair():
    """Of 0.32.0 it leaves temperatures of sampled drafts as the memory was (vLLM's issue 55005). When this fails, the
    repair can go."""
    current_platform.register_triton_kernel_overrides()  # as each worker of it begins
    filled, empty = torch.full((3,), 0.5), torch.Tensor.new_empty
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "new_empty", lambda self, *size, **how: empty(self, *size, **how).fill_(-7))
        found = rejection_sampler.expand_batch_to_tokens(filled, torch.tensor([1, 1, 3]), 3)
    assert found.tolist() == [-7] * 3
    assert expand_batch_to_tokens(torch.tensor([0.5, 9.0, 0.0]), torch.tensor([1, 1, 3]), 3, 0, 1).tolist() == [
        0.5,
        1,
        1,
    ]


@pytest.fixture(autouse=True)
def repaired(request, monkeypatch):
    if request.function is not test_vllm_for_cpus_needs_the_repair:
        monkeypatch.setattr(rejection_sampler, "expand_batch_to_tokens", expand_batch_to_tokens)


def chi_square(texts: list[list[int]], law: torch.Tensor) -> tuple[float, float]:
    """The statistic of the texts, those that are rare by their law taken together, and its p-value by the normal
    approximation of Wilson and Hilferty."""
    weights = LAW_VOCABULARY ** torch.arange(LAW_LENGTH - 1, -1, -1)
    observed = (torch.tensor(texts) * weights).sum(1).bincount(minlength=len(law)).double()
    expected = law * len(texts)
    rare = expected < 5
    observed = torch.cat([observed[~rare], observed[rare].sum().view(1)])
    expected = torch.cat([expected[~rare], expected[rare].sum().view(1)])
    statistic = float((((observed - expected) ** 2) / expected).sum())
    freedom = len(expected) - 1
    z = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / math.sqrt(2 / (9 * freedom))
    return statistic, 0.5 * math.erfc(z / math.sqrt(2))


def sampled(
    law, method: str | None, settings, requests: int = REQUESTS, **speculative
) -> tuple[float, dict[str, float]]:
    """The p-value of many texts, and what was counted."""
    folders, exact = law
    options = {"skip_tokenizer_init": True, "max_num_seqs": 128, "speculative": speculative}
    with engine(folders, method, settings=settings, **options) as llm, counting() as counts:
        texts = generate(llm, [PROMPT] * requests, LAW_LENGTH, temperature=1.0)
    return chi_square(texts, exact)[1], counts


def test_no_speculation_has_the_law(law):
    p_value, counts = sampled(law, None, None)
    assert p_value > LEVEL
    assert not any(counts.values())


def test_all_drafts_have_the_law(law):
    """What vLLM does by itself."""
    p_value, counts = sampled(law, "draft_model", {"budget": "all"}, draft_sample_method="probabilistic")
    assert p_value > LEVEL
    assert 0 < counts["accepted"] < counts["verified"]


@pytest.mark.parametrize(
    ("method", "score"),
    [("draft_model", "top"), ("draft_model", "collision"), ("draft_model", "history"), ("eagle", "top")],
)
def test_drawn_drafts(law, method, score):
    settings = {"budget": "0.7x", "score": score}
    p_value, counts = sampled(law, method, settings, draft_sample_method="probabilistic")
    assert p_value > LEVEL
    assert 0 < counts["accepted"] < counts["verified"] < counts["proposed"]


def test_the_score_that_is_refused_would_be_seen(law, monkeypatch):
    """The drawn token's own probability, recorded past the rules: the reason that they are there."""
    monkeypatch.setattr(rules, "score_kind", lambda asked, how: "token")

    def record_the_drawn(proposer_class, kind_of):
        sample = proposer_class._sample_from_logits

        def _sample_from_logits(self, logits, sampling_metadata):
            ids, probs = sample(self, logits, sampling_metadata)
            recorded = recording.take(self)
            setattr(self, recording.RECORDED, [*recorded, probs.gather(1, ids.long().unsqueeze(1)).squeeze(1).log()])
            return ids, probs

        proposer_class._sample_from_logits = _sample_from_logits

    from vllm.v1.spec_decode.llm_base_proposer import SpecDecodeBaseProposer

    before = SpecDecodeBaseProposer._sample_from_logits
    monkeypatch.setattr(recording, "_record", lambda *_: None)
    record_the_drawn(SpecDecodeBaseProposer, None)
    try:
        settings = {"budget": "0.7x", "score": "token"}
        p_value, _ = sampled(law, "draft_model", settings, 4 * REQUESTS, draft_sample_method="probabilistic")
    finally:
        SpecDecodeBaseProposer._sample_from_logits = before
    assert p_value < 1e-12


# n-grams last: after numba is loaded, vLLM for CPUs starts no other engine in the process.
@pytest.mark.parametrize("method", ["draft_model", "eagle", "ngram"])
def test_drafts_that_are_not_drawn(law, method):
    p_value, counts = sampled(law, method, {"budget": "0.7x"})
    assert p_value > LEVEL
    assert 0 < counts["accepted"] < counts["verified"] < counts["proposed"]
