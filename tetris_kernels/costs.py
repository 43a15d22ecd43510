"""What a verification costs on one machine: its time by the tokens in it, and that of drafting by its length."""

from __future__ import annotations

import bisect
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

MAX_ENDS = 64  # that `expected_accepts` and `choose_budget` take


@dataclass(frozen=True)
class CostTable:
    """Seconds, measured or modelled at some numbers of tokens.

    key:              what the table is of: device, model, dtype, versions, or the parameters of a model of a GPU.
    tokens, seconds:  of a verification: tokens in the batch (each running request's last one and the drafts), rising,
                      and the time that the step takes with them, all but drafting. Above 0, and never falling.
    draft_seconds:    of making 0, 1, 2, ... drafts for every request; never falling.
    staircase:        whether a verification is padded to the next of `tokens`, as to a captured graph's bucket, and
                      costs what that one does; there is none beyond the last. Else costs lie on the straight lines
                      between points; beyond the last one the line between the last two goes on, below the first one
                      its time holds.
    """

    key: Mapping[str, str]
    tokens: tuple[int, ...]
    seconds: tuple[float, ...]
    draft_seconds: tuple[float, ...]
    staircase: bool = False

    def __post_init__(self) -> None:
        if len(self.tokens) < 2 or len(self.tokens) != len(self.seconds):
            got = f"{len(self.tokens)} and {len(self.seconds)}"
            raise ValueError(f"tokens, seconds: expected two points or more, as many of each, got {got}")
        if not all(isinstance(n, int) for n in self.tokens) or self.tokens[0] < 1 or any(np.diff(self.tokens) <= 0):
            raise ValueError(f"tokens: expected rising integers from 1 on, got {list(self.tokens)}")
        for name, values in (("seconds", self.seconds), ("draft_seconds", self.draft_seconds)):
            if not all(np.isfinite(values)) or min(values, default=-1) < 0 or any(np.diff(values) < 0):
                raise ValueError(f"{name}: expected numbers from 0 on that never fall, got {list(values)}")
        if self.seconds[0] == 0:
            raise ValueError(f"seconds: expected numbers above 0, got {list(self.seconds)}")

    def verification(self, tokens: int) -> float:
        """Seconds of a step with this many tokens in the batch, all but drafting.

        Raises:
            ValueError: more tokens than the last bucket of a staircase holds.
        """
        if self.staircase:
            if tokens > self.tokens[-1]:
                raise ValueError(f"tokens: expected at most {self.tokens[-1]}, the last bucket, got {tokens}")
            return self.seconds[bisect.bisect_left(self.tokens, tokens)]
        if tokens <= self.tokens[-1]:
            return float(np.interp(tokens, self.tokens, self.seconds))
        slope = (self.seconds[-1] - self.seconds[-2]) / (self.tokens[-1] - self.tokens[-2])
        return self.seconds[-1] + slope * (tokens - self.tokens[-1])

    def drafting(self, length: int) -> float:
        """Seconds of making `length` drafts for every request.

        Raises:
            ValueError: more drafts than the table has.
        """
        if not 0 <= length < len(self.draft_seconds):
            raise ValueError(f"length: expected 0 to {len(self.draft_seconds) - 1} drafts, got {length}")
        return self.draft_seconds[length]

    def budgets(self, num_requests: int, num_drafts: int) -> list[int]:
        """Budgets worth comparing for a batch of `num_requests` with `num_drafts` drafts in all: rising, at most
        MAX_ENDS. The last one is all drafts, or as many as the table has costs of.

        Of a staircase those that fill a bucket, since padding is paid anyway; else evenly spaced ones.
        """
        most = max(min(num_drafts, self.tokens[-1] - num_requests), 0)
        if self.staircase:
            below = [end - num_requests for end in self.tokens if 0 <= end - num_requests < most]
        else:
            below = list(range(most))
        step = -(-len(below) // (MAX_ENDS - 1)) or 1
        # From the end, so that the last bucket before all drafts is one of them.
        return [*below[::-1][::step][::-1], most]

    def ends(self, device: torch.device | str | int = "cpu") -> tuple[Tensor, Tensor]:
        """`tokens` as int32 and `seconds` as float32 [S] on a device, as `choose_budget` takes them.

        Raises:
            ValueError: more than MAX_ENDS points; a flat table.
        """
        self.require_rising()
        if len(self.tokens) > MAX_ENDS:
            raise ValueError(f"tokens: expected at most {MAX_ENDS} points, got {len(self.tokens)}")
        return (
            torch.tensor(self.tokens, dtype=torch.int32, device=device),
            torch.tensor(self.seconds, dtype=torch.float32, device=device),
        )

    @property
    def rises(self) -> bool:
        """Whether more tokens ever cost more."""
        return self.seconds[0] < self.seconds[-1]

    def require_rising(self) -> None:
        """Refuse a table by which verifying everything is free, as it was not measured far enough: ValueError."""
        if not self.rises:
            expected = "seconds that rise somewhere, or every draft is worth verifying"
            got = f"{self.seconds[0]} from {self.tokens[0]} to {self.tokens[-1]} tokens"
            raise ValueError(f"cost table: expected {expected}, got {got}")

    def require(self, key: Mapping[str, str]) -> None:
        """Refuse a table of something else: ValueError with what differs."""
        different = [name for name in sorted({*key, *self.key}) if key.get(name) != self.key.get(name)]
        if different:
            name = different[0]
            raise ValueError(f"cost table: expected one of {name} {key.get(name)}, got {self.key.get(name)}")

    def save(self, path: Path) -> None:
        """As JSON."""
        path.write_text(json.dumps(asdict(self), indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> CostTable:
        """What `save` wrote; ValueError if it is something else, OSError if there is nothing to read."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            points = {name: tuple(document[name]) for name in ("tokens", "seconds", "draft_seconds")}
            return cls(key=dict(document["key"]), **points, staircase=bool(document.get("staircase", False)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise ValueError(f"{path}: expected a cost table in JSON, got {type(error).__name__}: {error}") from error
