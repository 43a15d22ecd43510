"""What is random in a batch: temperatures, top-p, and a stream of random numbers for each request."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor
from transformers import TopPLogitsWarper


class Sampling:
    """How the tokens of N requests are drawn from the target's logits, and the drafts from a drafter's.

    temperature: of all requests, 0 if all are greedy; or [N] float32 where they differ.

    Args:
        num_requests: N.
        temperature: 0 is greedy; one number, or one for each request.
        top_p: draw from the fewest tokens that have at least this probability together; for all requests.
        seeds: of each request; 0, 1, 2, ... by default. Requests of one seed get the same numbers.

    Raises:
        ValueError: a temperature that is negative or not finite, a top_p outside of (0, 1], another number of
            temperatures or seeds than requests.
    """

    def __init__(
        self,
        num_requests: int,
        *,
        temperature: float | Sequence[float] = 0.0,
        top_p: float = 1.0,
        seeds: Sequence[int] | None = None,
        device: torch.device | str = "cpu",
    ) -> None:
        each = temperature if isinstance(temperature, Iterable) else [temperature] * num_requests
        temperatures = [float(t) for t in each]
        seeds = range(num_requests) if seeds is None else seeds
        for name, values in (("temperature", temperatures), ("seeds", seeds)):
            if len(values) != num_requests:
                raise ValueError(f"{name}: expected one for each of {num_requests} requests, got {len(values)}")
        wrong = [t for t in temperatures if not 0 <= t < math.inf]
        if wrong:
            raise ValueError(f"temperature: expected finite numbers from 0 on, got {wrong[0]}")
        if not 0 < top_p <= 1:
            raise ValueError(f"top_p: expected a number above 0 and up to 1, got {top_p}")

        same = len(set(temperatures)) == 1
        # A number where it can be one: then nobody needs to ask the device whether requests are greedy.
        self.temperature = temperatures[0] if same else torch.tensor(temperatures, dtype=torch.float32, device=device)
        self.device = device
        self._top_p = TopPLogitsWarper(top_p) if top_p < 1 else None
        self._streams = [torch.Generator().manual_seed(seed) for seed in seeds]

    def of(self, requests: Sequence[int]) -> Sampling:
        """These requests alone, in this order, on the same streams of random numbers."""
        some = copy.copy(self)
        some._streams = [self._streams[request] for request in requests]
        if isinstance(self.temperature, Tensor):
            some.temperature = self.temperature[list(requests)]
        return some

    @property
    def is_greedy(self) -> bool:
        """Whether nothing is drawn at all."""
        return isinstance(self.temperature, float) and self.temperature == 0

    def uniforms(self, count: int, rows: Sequence[int] | None = None) -> Tensor:
        """[N, count] float32 in [0, 1), from the requests' own streams; zeros if all are greedy.

        Given `rows`, only theirs are drawn; those of the others are zeros, and their streams stay where they are.
        """
        drawn = torch.zeros(len(self._streams), count, dtype=torch.float32)
        if not self.is_greedy:
            for row in range(len(drawn)) if rows is None else rows:
                drawn[row] = torch.rand(count, generator=self._streams[row], dtype=torch.float32)
        return drawn.to(self.device)

    def scaled(self, logits: Tensor, request: Tensor | None = None) -> Tensor:
        """Logits by the temperature of the request [T] of each row [T, V], or of each request in turn.

        Those of greedy requests stay as they are.
        """
        if isinstance(self.temperature, float):
            return logits if self.temperature in (0, 1) else logits.float() / self.temperature
        temperature = self.temperature if request is None else self.temperature[request]
        return logits.float() / torch.where(temperature > 0, temperature, 1.0)[:, None]

    def filtered(self, logits: Tensor, request: Tensor) -> Tensor:
        """Logits [T, V] of the requests [T], with -inf at what top-p leaves out; those of greedy ones as they are."""
        if self._top_p is None or self.is_greedy:
            return logits
        left_out = self._top_p(None, self.scaled(logits, request).float()) == -torch.inf
        if not isinstance(self.temperature, float):
            # Of equal logits top-p may keep others than the lowest token, which is the greedy one.
            left_out &= (self.temperature[request] > 0)[:, None]
        return logits.masked_fill(left_out, -torch.inf)

    def draw(self, scaled: Tensor, uniforms: Tensor) -> Tensor:
        """[N] int64: a token of each request from its scaled logits [N, V] and a uniform [N]; greedy ones: the best."""
        # Not argmax, which takes more than twice as long for bfloat16 on a CPU.
        best = scaled.max(-1).indices
        if self.is_greedy:
            return best
        sums = scaled.double().softmax(-1).cumsum(-1)
        part = uniforms[:, None].double() * sums[:, -1:]
        drawn = torch.searchsorted(sums, part, right=True)[:, 0].clamp(max=scaled.shape[1] - 1)
        if isinstance(self.temperature, float):
            return drawn
        return torch.where(self.temperature > 0, drawn, best)
