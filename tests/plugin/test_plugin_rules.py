"""Which scores an engine may have, and which engines the plugin serves."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tetris_vllm.rules import WITHOUT_LOGITS, Drafting, drafting, require_supported, score_kind, selects_itself
from tetris_vllm.settings import SCORES

GREEDY = Drafting("draft_model", 4, drawn=False, logits=True)
DRAWN = GREEDY._replace(drawn=True)
NGRAM = Drafting("ngram", 4, drawn=False, logits=False)


@pytest.mark.parametrize(
    ("how", "kinds"),
    [
        # The argmax has the largest probability.
        (GREEDY, {"auto": "top", "token": "top", "top": "top", "collision": "collision", "history": "history"}),
        (DRAWN, {"auto": "top", "top": "top", "collision": "collision", "history": "history"}),
        (NGRAM, {"auto": "history", "history": "history"}),
    ],
    ids=["greedy", "drawn", "without logits"],
)
def test_kinds(how, kinds):
    for asked in SCORES:
        if asked in kinds:
            assert score_kind(asked, how) == kinds[asked]
        else:
            with pytest.raises(ValueError, match=f"^score: expected .*, got '{asked}'"):
                score_kind(asked, how)


def test_the_biased_score_is_refused_with_the_reason():
    expected = "expected 'top', 'collision' or 'history' with drafts that are drawn"
    with pytest.raises(ValueError, match=f"{expected} .*, got 'token': it biases sampled output, since vLLM draws"):
        score_kind("token", DRAWN)


def test_scores_of_logits_need_logits():
    with pytest.raises(ValueError, match=r"expected 'history' or 'auto' where drafts have no logits \(ngram\), got"):
        score_kind("top", NGRAM)


def config(method="draft_model", *, sampled="greedy", rejection="standard", local=False, **engine):
    speculative = SimpleNamespace(
        method=method,
        num_speculative_tokens=3,
        draft_sample_method=sampled,
        rejection_sample_method=rejection,
        use_local_argmax_reduction=local,
        use_heterogeneous_vocab=engine.get("vocabularies", False),
        enable_adaptive_verification=engine.get("adaptive", False),
    )
    scheduling = SimpleNamespace(async_scheduling=engine.get("asynchronous", False), scheduler_cls=engine.get("cls"))
    return SimpleNamespace(
        speculative_config=speculative if method else None,
        scheduler_config=scheduling,
        parallel_config=SimpleNamespace(pipeline_parallel_size=engine.get("stages", 1)),
        use_v2_model_runner=engine.get("v2", False),
    )


def test_how_an_engine_drafts():
    assert drafting(config(None)) is None
    assert drafting(config()) == Drafting("draft_model", 3, False, True)
    assert drafting(config("eagle", sampled="probabilistic")) == Drafting("eagle", 3, True, True)
    # Then vLLM tests no drawn drafts.
    assert drafting(config("eagle", sampled="probabilistic", rejection="synthetic")) == Drafting(
        "eagle", 3, False, True
    )
    assert drafting(config(local=True)) == Drafting("draft_model", 3, False, False)
    assert drafting(config(vocabularies=True)) == Drafting("draft_model", 3, False, False)
    for method in WITHOUT_LOGITS:
        assert drafting(config(method)) == Drafting(method, 3, False, False)


@pytest.mark.parametrize(
    "engine", [{}, {"v2": True, "adaptive": True}, {"v2": True, "adaptive": True, "asynchronous": True}]
)
def test_engines_that_are_served(engine):
    require_supported(config(**engine))
    assert selects_itself(config(**engine)) == engine.get("v2", False)


@pytest.mark.parametrize(
    ("engine", "message"),
    [
        ({"asynchronous": True}, r"async_scheduling: expected False \(--no-async-scheduling\), got True: asynchronous"),
        ({"v2": True}, r"runner: expected V1 \(VLLM_USE_V2_MODEL_RUNNER=0\), or enable_adaptive_verification, got V2"),
        ({"stages": 2}, "pipeline_parallel_size: expected 1, got 2: with more, drafts arrive before"),
        ({"cls": "a.Scheduler"}, "scheduler_cls: expected none, as the plugin brings its own, got a.Scheduler"),
    ],
)
def test_engines_that_are_refused(engine, message):
    with pytest.raises(ValueError, match=message):
        require_supported(config(**engine))
