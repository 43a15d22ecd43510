"""What may be asked of an engine: which scores keep its output lossless, and which configurations the plugin serves."""

from __future__ import annotations

from typing import Any, NamedTuple

# Their drafts come without logits.
WITHOUT_LOGITS = ("ngram", "ngram_gpu", "suffix", "medusa", "mlp_speculator", "custom_class", "extract_hidden_states")


class Drafting(NamedTuple):
    """How an engine drafts.

    method: by vLLM's name.
    length: drafts made for each request.
    drawn:  whether drafts are drawn from the drafter's distribution, and tested by it. Else they are its argmax or
            come from the text, and are tested as certain.
    logits: whether the drafter's logits pass where they can be recorded.
    """

    method: str
    length: int
    drawn: bool
    logits: bool


def drafting(vllm_config: Any) -> Drafting | None:
    """Of a `vllm.config.VllmConfig`; None: it does not speculate."""
    speculative = vllm_config.speculative_config
    if speculative is None:
        return None
    method = str(speculative.method)
    drawn = speculative.draft_sample_method == "probabilistic" and speculative.rejection_sample_method == "standard"
    logits = method not in WITHOUT_LOGITS and not speculative.use_local_argmax_reduction
    # Tokens that the target does not have are masked behind the place where logits are recorded.
    logits = logits and not speculative.use_heterogeneous_vocab
    return Drafting(method, speculative.num_speculative_tokens, drawn and logits, logits)


def score_kind(asked: str, how: Drafting) -> str:
    """By what drafts are compared: "top", "collision" (`tetris_kernels.score`) or "history", by what was accepted.

    "auto" is "top" where there are logits, else "history". "token", the drawn token's own probability, is "top" where
    drafts are the argmax. Where they are drawn it is refused, since vLLM draws the token behind the last verified draft
    directly from the target: a request would be cut more often where the drawn token is unlikely, and what is emitted
    there would no longer have the target's law. The other scores depend on the text before a draft only.

    Raises:
        ValueError: "token" with drafts that are drawn; a score of logits where there are none.
    """
    if asked == "auto":
        return "top" if how.logits else "history"
    if asked == "token" and how.drawn:
        raise ValueError(
            "score: expected 'top', 'collision' or 'history' with drafts that are drawn "
            "(draft_sample_method='probabilistic'), got 'token': it biases sampled output, since vLLM draws the bonus "
            "token directly (tetris_kernels, DESIGN.md, Which selection is lossless)"
        )
    if asked != "history" and not how.logits:
        raise ValueError(
            f"score: expected 'history' or 'auto' where drafts have no logits ({how.method}), got {asked!r}"
        )
    return "top" if asked == "token" else asked


def selects_itself(vllm_config: Any) -> bool:
    """Whether it is Model Runner V2 that decides how many drafts are verified."""
    return bool(vllm_config.use_v2_model_runner and vllm_config.speculative_config.enable_adaptive_verification)


def require_supported(vllm_config: Any) -> None:
    """Refuse what the plugin was switched on for and cannot serve: ValueError with what to change."""
    if selects_itself(vllm_config):
        return
    scheduling = vllm_config.scheduler_config
    if vllm_config.use_v2_model_runner:
        expected = "V1 (VLLM_USE_V2_MODEL_RUNNER=0), or enable_adaptive_verification"
        raise ValueError(f"model runner: expected {expected}, got V2 without")
    if scheduling.async_scheduling:
        reason = "asynchronous scheduling verifies drafts that the scheduler has not seen"
        raise ValueError(f"async_scheduling: expected False (--no-async-scheduling), got True: {reason}")
    stages = vllm_config.parallel_config.pipeline_parallel_size
    if stages > 1:
        reason = "with more, drafts arrive before it is known which requests have ended"
        raise ValueError(f"pipeline_parallel_size: expected 1, got {stages}: {reason}")
    if scheduling.scheduler_cls is not None:
        got = scheduling.scheduler_cls
        raise ValueError(f"scheduler_cls: expected none, as the plugin brings its own, got {got}")
