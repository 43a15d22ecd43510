"""The state of a batch of requests while it is decoded."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tetris_decode.sampling import Sampling


class Batch:
    """N rows of requests: their tokens so far, and when they end.

    tokens:    [N, W] int64, prompt and output of each row's request; what is behind means nothing.
    lens:      [N] int64, tokens of each.
    max_lens:  [N] int64, its prompt and all it may generate.
    done:      [N] bool.
    requests:  the request in each row, N host integers.
    sampling:  how the rows' tokens are drawn.

    A finished request keeps its row until `refill` gives it to one that waits.

    Args:
        prompts: the prompt of each request, at least one token each.
        max_new_tokens: how many tokens each request may generate at most; one number, or one for each.
        num_rows: N; by default every request has a row from the beginning.
        eos_token_ids: tokens that end a request; they are part of its output.
        num_drafts: K, room for drafts behind each request.
        sampling: of all requests; greedy by default.
    """

    def __init__(
        self,
        prompts: Sequence[Sequence[int]],
        max_new_tokens: int | Sequence[int],
        *,
        num_rows: int | None = None,
        eos_token_ids: Sequence[int] = (),
        num_drafts: int = 0,
        sampling: Sampling | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        self._prompts = prompts
        self._limits = [max_new_tokens] * len(prompts) if isinstance(max_new_tokens, int) else list(max_new_tokens)
        self._sampling = sampling or Sampling(len(prompts), device=device)
        self._eos = torch.tensor(list(eos_token_ids), dtype=torch.int64, device=device)
        self._finished: dict[int, list[int]] = {}
        self._next = num_rows = min(num_rows or len(prompts), len(prompts))

        # K drafts and the token after them have room behind the longest request at its end.
        longest = max(len(prompt) + limit for prompt, limit in zip(prompts, self._limits, strict=True))
        self.tokens = torch.zeros(num_rows, longest + num_drafts + 1, dtype=torch.int64, device=device)
        self.lens = torch.zeros(num_rows, dtype=torch.int64, device=device)
        self.max_lens = torch.zeros_like(self.lens)
        self.done = torch.zeros(num_rows, dtype=torch.bool, device=device)
        self.requests = list(range(num_rows))
        self._place(self.requests)

    @property
    def num_waiting(self) -> int:
        """Requests that have not had a row yet."""
        return len(self._prompts) - self._next

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

    def refill(self) -> list[int]:
        """Give the rows of finished requests to those that wait, in order; the rows that were given."""
        rows = [row for row, done in enumerate(self.done.tolist()) if done][: self.num_waiting]
        if rows:
            self._finished |= self._outputs(rows)
            for row in rows:
                self.requests[row] = self._next
                self._next += 1
            self._place(rows)
        return rows

    def outputs(self) -> list[list[int]]:
        """What each request that has had a row has generated so far."""
        finished = self._finished | self._outputs(range(len(self.requests)))
        return [finished[request] for request in range(self._next)]

    def _place(self, rows: Sequence[int]) -> None:
        """The prompts of the rows' requests, of which nothing has been generated."""
        device = self.tokens.device
        prompts = [list(self._prompts[self.requests[row]]) for row in rows]
        lens = [len(prompt) for prompt in prompts]
        padded = [prompt + [0] * (max(lens) - len(prompt)) for prompt in prompts]
        index = torch.tensor(rows, device=device)
        self.tokens[index, : max(lens)] = torch.tensor(padded, dtype=torch.int64, device=device)
        self.lens = self.lens.index_copy(0, index, torch.tensor(lens, device=device))
        limits = torch.tensor([self._limits[self.requests[row]] for row in rows], device=device)
        self.max_lens = self.max_lens.index_copy(0, index, self.lens[index] + limits)
        self.done = self.done.index_fill(0, index, False)
        self.sampling = self._sampling.of(self.requests)

    def _outputs(self, rows: Sequence[int]) -> dict[int, list[int]]:
        """What the requests in these rows have generated, by request."""
        tokens, lens = self.tokens.tolist(), self.lens.tolist()
        requests = [(row, self.requests[row]) for row in rows]
        return {request: tokens[row][len(self._prompts[request]) : lens[row]] for row, request in requests}
