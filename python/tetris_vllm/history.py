"""AcceptanceHistory: how likely a request's drafts are to be accepted, by what became of its earlier ones."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence

import torch
from torch import Tensor

FORGET = 0.9  # of a request's counts are kept from step to step, tested or not, so that nobody is out for ever
FORGET_ALL = 0.999  # of the counts of all, for each request and step
PRIOR = 2.0  # tests that the rate of all requests counts for in that of one


class AcceptanceHistory:
    """Rates of acceptance, a request's own and that of all, from earlier steps only.

    So as a score it depends on nothing that a step draws. It knows no difference between the drafts of a request: by
    it the first ones of all requests come before the second ones, except where one request does much better.
    """

    def __init__(self) -> None:
        self._all = (0.0, 0.0)
        self._requests: dict[str, tuple[float, float]] = {}

    def observe(self, request: str, verified: int, accepted: int) -> None:
        """A step of a request in which `accepted` of its first `verified` drafts were accepted; none may have been."""
        # What is behind the first rejected draft was not tested.
        tested = min(verified, accepted + 1)
        self._requests[request] = _add(self._requests.get(request, (0.0, 0.0)), accepted, tested, FORGET)
        self._all = _add(self._all, accepted, tested, FORGET_ALL)

    def rate(self, request: str) -> float:
        """The estimate that the next draft is accepted, above 0 and below 1."""
        accepted, tested = self._all
        of_all = (accepted + 1) / (tested + 2)
        accepted, tested = self._requests.get(request, (0.0, 0.0))
        return (accepted + PRIOR * of_all) / (tested + PRIOR)

    def logprobs(self, requests: Sequence[str], num_drafts: int) -> Tensor:
        """[N, num_drafts] float32 for `tetris_kernels.select`, the same along each row."""
        rates = [math.log(self.rate(request)) for request in requests]
        return torch.tensor(rates, dtype=torch.float32).unsqueeze(1).expand(-1, num_drafts)

    def keep(self, requests: Collection[str]) -> None:
        """Forget all requests but these, now and then: that is when there are twice as many."""
        if len(self._requests) > 2 * len(requests) + 64:
            self._requests = {name: counts for name, counts in self._requests.items() if name in requests}


def _add(counts: tuple[float, float], accepted: int, tested: int, kept: float) -> tuple[float, float]:
    return kept * counts[0] + accepted, kept * counts[1] + tested
