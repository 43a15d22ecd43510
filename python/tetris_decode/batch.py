"""The state of a batch of requests while it is decoded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tetris_decode.sampling import Sampling


class Batch:
    """N requests: their tokens so far, and when they end.

    tokens:    [N, W] int64, prompt and output of each request; what is behind means nothing.
    lens:      [N] int64, tokens of each request.
    max_lens:  [N] int64, its prompt and all it may generate.
    done:      [N] bool.
    sampling:  how tokens are drawn.

    A finished request keeps its row, so that rows mean the same from beginning to end.

    Args:
        prompts: the prompt of each request, at least one token each.
        max_new_tokens: how many tokens each request may generate at most.
        eos_token_ids: tokens that end a request; they are part of its output.
        num_drafts: K, room for drafts behind each request.
        sampling: greedy by default.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int,
        *,
        eos_token_ids: Sequence[int] = (),
        num_drafts: int = 0,
        sampling: Sampling | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        prompt_lens = [len(prompt) for prompt in prompts]
        # K drafts and the token after them have room behind the longest request at its end.
        width = max(prompt_lens) + max_new_tokens + num_drafts + 1
        rows = [[*prompt, *[0] * (width - len(prompt))] for prompt in prompts]
        self.tokens = torch.tensor(rows, dtype=torch.int64, device=device)
        self.lens = torch.tensor(prompt_lens, dtype=torch.int64, device=device)
        self.max_lens = self.lens + max_new_tokens
        self.done = self.lens == self.max_lens
        self.sampling = sampling or Sampling(len(prompts), device=device)
        self.prompt_lens = prompt_lens
        self._eos = torch.tensor(list(eos_token_ids), dtype=torch.int64, device=device)

    @property
    def max_drafts(self) -> Tensor:
        """[N] int64: drafts that may still be of use. The last token needs none, nor does a finished request."""
        return (self.max_lens - self.lens - 1).clamp(min=0).masked_fill(self.done, 0)

    @property
    def last_tokens(self) -> Tensor:
        """[N] int64: the anchors of a verification."""
        return self.tokens.gather(1, self.lens[:, None] - 1)[:, 0]

    @property
    def context_lens(self) -> Tensor:
        """[N] int64: tokens before the last one of each request; -1 if it is done and sits out."""
        return (self.lens - 1).masked_fill(self.done, -1)

    def append(self, tokens: Tensor, counts: Tensor) -> Tensor:
        """Take the first `counts` [N] of `tokens` [N, J]; stop at an end. [N] int64, how many were taken."""
        steps = torch.arange(tokens.shape[1], device=tokens.device)
        counts = torch.minimum(counts, self.max_lens - self.lens).masked_fill(self.done, 0)
        ends = torch.isin(tokens, self._eos) & (steps < counts[:, None])
        ended = ends.any(1)
        counts = torch.where(ended, ends.int().argmax(1) + 1, counts)

        at = self.lens[:, None] + steps
        kept = torch.where(steps < counts[:, None], tokens, self.tokens.gather(1, at))
        self.tokens.scatter_(1, at, kept)
        self.lens = self.lens + counts
        self.done = self.done | ended | (self.lens == self.max_lens)
        return counts

    def outputs(self) -> list[list[int]]:
        """What each request has generated so far."""
        rows, lens = self.tokens.tolist(), self.lens.tolist()
        return [row[start:end] for row, start, end in zip(rows, self.prompt_lens, lens, strict=True)]
