"""What a drafter is: anything that proposes the next tokens of each request, and how likely it holds them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

# For its name alone: a batch needs transformers, a replay of recorded drafts does not.
if TYPE_CHECKING:
    from tetris_decode.batch import Batch


class Drafts(NamedTuple):
    """Proposed tokens, K for each of N requests.

    ids:      [N, K] int64.
    logprobs: [N, K] float32, natural log of the drafter's probability of each, given those before it, or a score of
              another kind.
    lens:     [N]    int64, how many of each row are drafts; what is beyond means nothing.
    logits:   [N, K, V] those of the distributions that the drafts were drawn from, temperature included; None if
              they were not drawn but chosen, as the most probable token is.
    acceptance: [N, K] float32, the true probability that the target accepts each draft, given those before it. Known
              in a simulation only.
    kind:     of score that logprobs are, as of `tetris_kernels.score`. What is learned from one does not fit another.

    A drafter that stops early because of the token it drew hands that token over as its last draft: dropping it
    would bias what is emitted.
    """

    ids: Tensor
    logprobs: Tensor
    lens: Tensor
    logits: Tensor | None = None
    acceptance: Tensor | None = None
    kind: str = "token"

    @classmethod
    def none(cls, like: Tensor) -> Drafts:
        """No drafts for the requests of `like` [N, ...]: K is 0."""
        ids = like.new_empty(len(like), 0, dtype=torch.int64)
        return cls(ids, ids.float(), ids.new_zeros(len(like)))


class Drafter(Protocol):
    """Proposes drafts for the requests of one batch at a time."""

    @property
    def vocab_size(self) -> int:
        """Draft ids are below it. It must be the target's."""

    def start(self, batch: Batch) -> None:
        """A new batch with its prompts; what is remembered of another one is void. Counts as reading the prompts."""

    def propose(self, batch: Batch, num_drafts: int) -> Drafts:
        """Drafts that follow `batch.tokens[r, : batch.lens[r]]`: K = `num_drafts`, lens at most `batch.max_drafts`.

        Need not be called in every step: since the last call requests may have grown by any number of tokens.
        Leaves the batch as it is. What it draws, it draws with `batch.sampling.uniforms`.
        """
