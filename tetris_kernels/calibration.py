"""Acceptance estimates from scores, learned from what `accept` returns, on the device."""

from __future__ import annotations

import math
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from tetris_kernels import checks
from tetris_kernels.reference import calibration as reference


class _Kind:
    """The kind of score that a calibration is of."""

    def __init__(self, kind: str) -> None:
        checks.check_choice("kind", kind, checks.KINDS)
        self.kind = kind

    @property
    def prefix_only(self) -> bool:
        """Whether calibrated scores are functions of the prefix only, as those that come in are.

        A calibration learned from earlier steps knows no draft of this one, so it keeps what its input was: scores of
        kind "token" look at the drawn token and stay lossless only with the coupled bonus or a greedy target.
        """
        return self.kind != "token"

    def _check_kind(self, kind: str) -> None:
        checks.check_choice("kind", kind, checks.KINDS)
        if kind != self.kind:
            raise ValueError(f"kind: expected {self.kind!r}, which this calibration is of, got {kind!r}")


class Uncalibrated(_Kind):
    """The identity, with the members of `Calibration`: it learns nothing, and is always warm.

    Args:
        kind: of the scores, as for `score`.
    """

    is_warm = True

    def __init__(self, *, kind: str = "token") -> None:
        super().__init__(kind)

    def __call__(self, scores: Tensor, *, kind: str) -> Tensor:
        """`scores` themselves."""
        self._check_kind(kind)
        return scores

    def update(
        self,
        scores: Tensor,
        lens: Tensor,
        counts: Tensor,
        coupled: Tensor,
        *,
        kind: str,
        draft_lens: Tensor | None = None,
        bonus: str = "coupled",
    ) -> None:
        """Learn nothing."""
        self._check_kind(kind)

    def state_dict(self) -> dict[str, Any]:
        return {"kind": self.kind}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """ValueError for a state of another kind."""
        self._check_kind(state.get("kind", "none"))


class Calibration(_Kind):
    """How likely a draft is accepted, by its position and score: a logistic curve, learned while decoding.

    With the log-odds x = log(p / (1 - p)) of a score log p, clamped to -16..16::

        P(draft j is accepted, given that all before it are) = sigmoid(w * x + b_j)

    one slope for all positions and an intercept for each: the form that vLLM 0.32 fits to the largest draft
    probability. The curve maximises log-likelihood - ridge / 2 * ((w - 1)^2 + sum of b_j^2). So before anything is
    learned it is the identity (w = 1, b = 0), and it stays finite where everything is accepted, or nothing.

    What it has seen is kept as counts of rejected and accepted drafts by position and log-odds, in 128 bins of 0.25,
    [2, K, 128] float64 on the device. A step's counts are integers, so that they are the same in whatever order they
    are added; a fit takes a fixed number of Newton steps from the last one. Nothing waits for the device, no shape
    depends on data, and the same calls give the same bits on the same device. Tensors are updated in place.

    Args:
        num_drafts: K, 0 to 256; scores may have fewer columns.
        kind: of the scores, "token", "top" or "collision", as for `score`. What is learned from one does not fit
            another.
        device: of everything.
        half_life: updates after which what was seen counts half, above 0; math.inf forgets nothing. An update without
            a tested draft forgets nothing.
        warmup: updates until `is_warm`. A policy verifies all that it can before, since a draft that is never
            verified teaches nothing.
        refit_every: updates from one fit to the next, 1 or more; there is one at the end of the warm-up too.
        ridge: how strongly the identity is believed, above 0: about as strongly as 4 * ridge tested drafts of even
            odds tell an intercept.

    Attributes:
        kind, num_drafts: as given.
        updates: how often `update` was called; a CUDA graph's replays are not counted.

    Raises:
        TypeError: a num_drafts, warmup or refit_every that is no integer, a half_life or ridge that is no number.
        ValueError: an argument out of its range, an unknown kind.
    """

    STEPS = 4  # of a fit; the next one goes on from there

    def __init__(
        self,
        num_drafts: SupportsIndex,
        *,
        kind: str = "token",
        device: torch.device | str | None = None,
        half_life: float = 1000.0,
        warmup: SupportsIndex = 32,
        refit_every: SupportsIndex = 16,
        ridge: float = 1.0,
    ) -> None:
        super().__init__(kind)
        self.num_drafts = checks.as_size("num_drafts", num_drafts, checks.MAX_DRAFTS)
        self.warmup = checks.as_size("warmup", warmup)
        self.refit_every = checks.as_size("refit_every", refit_every)
        if self.refit_every < 1:
            raise ValueError(f"refit_every: expected 1 or more, got {self.refit_every}")
        self.half_life = _positive("half_life", half_life)
        self.ridge = _positive("ridge", ridge)
        if math.isinf(self.ridge):
            raise ValueError(f"ridge: expected a finite number, got {self.ridge}")
        self.updates = 0
        # Ordinary tensors also if made in inference mode: updates may come outside of it.
        with torch.inference_mode(False):
            size = (2, self.num_drafts, reference.NUM_BINS)
            self._counts = torch.zeros(size, dtype=torch.float64, device=device)
            self._weights = torch.zeros(1 + self.num_drafts, dtype=torch.float64, device=device)
            self._weights[:1].fill_(1)

    @property
    def is_warm(self) -> bool:
        """Whether the warm-up is over; asks the host only."""
        return self.updates >= self.warmup

    @property
    def slope(self) -> Tensor:
        """[] float64, w of the last fit; a view that later fits change."""
        return self._weights[0]

    @property
    def intercepts(self) -> Tensor:
        """[K] float64, b_j of the last fit; a view that later fits change."""
        return self._weights[1:]

    @torch.no_grad()
    def __call__(self, scores: Tensor, *, kind: str) -> Tensor:
        """The log of the calibrated acceptance estimates, an input of `select`.

        Args:
            scores: [N, K], of up to num_drafts columns; float32, bfloat16 or float16; any strides. Above 0 counts as
                0. -inf is as far as -16 nats; NaN stays NaN, which `select` takes as never.
            kind: of these scores; it must be that of the calibration.

        Returns:
            [N, K] float32, at most 0, in a fresh tensor. The scores are not mutated.

        Raises:
            TypeError: scores that are no tensor of these dtypes.
            ValueError: another kind, a wrong shape or device.
        """
        self._check_scores(scores, kind)
        return reference.calibrated(reference.log_odds(scores), self._weights)

    @torch.no_grad()
    def update(
        self,
        scores: Tensor,
        lens: Tensor,
        counts: Tensor,
        coupled: Tensor,
        *,
        kind: str,
        draft_lens: Tensor | None = None,
        bonus: str = "coupled",
    ) -> None:
        """Learn from a step: of each request from the drafts that were tested, up to the first rejection::

            for j in range(min(lens[r] + (bonus == "coupled"), draft_lens[r])):
                was draft j accepted?  j < counts[r] - 1 + coupled[r]
                if not, stop: what lies behind is not known

        A request of counts 0 sat out, and a score of NaN teaches nothing.

        Args:
            scores: [N, K], those of the drafts, as they were before calibration.
            lens: [N] int32 or int64, how many were verified: of `select`, or of `pack` if that may overflow.
            counts, coupled: [N] int32 and bool, of `accept`.
            kind: of these scores; it must be that of the calibration.
            draft_lens: [N] int32 or int64, how many drafts there were. Default: K.
            bonus: as for `accept`. With "coupled" the first draft that was not selected was tested too.

        Raises:
            TypeError: an argument of the wrong type or dtype.
            ValueError: another kind, an unknown bonus, a wrong shape or device.
        """
        self._check_scores(scores, kind)
        checks.check_choice("bonus", bonus, checks.BONUS)
        like, size = ("scores", scores), (scores.shape[0],)
        checks.check_like("lens", lens, checks.INTS, size, "one value per request", like)
        checks.check_like("counts", counts, (torch.int32,), size, "one value per request", like)
        checks.check_like("coupled", coupled, (torch.bool,), size, "one value per request", like)
        checks.check_per_request("draft_lens", draft_lens, checks.INTS, like)
        if draft_lens is None:
            draft_lens = torch.full_like(lens, scores.shape[1])
        seen = reference.count_outcomes(
            reference.log_odds(scores),
            lens,
            draft_lens,
            counts,
            coupled,
            num_drafts=self.num_drafts,
            tests_next=bonus == "coupled",
        )
        self._counts.mul_(0.5 ** (seen.any().double() / self.half_life)).add_(seen)
        self.updates += 1
        if self.updates % self.refit_every == 0 or self.updates == self.warmup:
            self.refit()

    @torch.no_grad()
    def refit(self) -> None:
        """Fit the curve to what was seen so far, as `update` does by itself every `refit_every` times."""
        self._weights.copy_(reference.fit(self._weights, self._counts, ridge=self.ridge, steps=self.STEPS))

    def state_dict(self) -> dict[str, Any]:
        """All that was learned, in fresh tensors, for `torch.save`."""
        state = {"counts": self._counts.clone(), "weights": self._weights.clone()}
        return {"kind": self.kind, "updates": self.updates, **state}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what `state_dict` returned, on any device. half_life, warmup and the like stay as they are here.

        Raises:
            ValueError: a state of another kind or number of drafts, or something else.
        """
        if missing := {"kind", "updates", "counts", "weights"} - state.keys():
            raise ValueError(f"state: expected what state_dict returns, got none of {', '.join(sorted(missing))}")
        self._check_kind(state["kind"])
        for name, own in (("counts", self._counts), ("weights", self._weights)):
            if (got := state[name].shape) != own.shape:
                raise ValueError(f"state: expected {name} of shape {list(own.shape)}, got {list(got)}")
        self.updates = checks.as_size("updates", state["updates"])
        self._counts.copy_(state["counts"])
        self._weights.copy_(state["weights"])

    def _check_scores(self, scores: Tensor, kind: str) -> None:
        self._check_kind(kind)
        checks.check_tensor("scores", scores, checks.FLOATS, ("requests", "drafts"))
        if (got := scores.shape[1]) > self.num_drafts:
            raise ValueError(f"scores: expected at most the {self.num_drafts} drafts of this calibration, got {got}")
        checks.check_like("scores", scores, checks.FLOATS, tuple(scores.shape), "", ("calibration", self._weights))


def _positive(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    if not value > 0:
        raise ValueError(f"{name}: expected a number above 0, got {value}")
    return float(value)
