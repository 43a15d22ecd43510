"""What a step costs on one machine: the time of a verification by its tokens, and of drafting by its length."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np


@dataclass(frozen=True)
class CostTable:
    """Seconds, measured or modelled at some points; between two of them on the straight line.

    key:              what the table is of: device, model, dtype, versions, or the parameters of a model of a GPU.
    tokens, seconds:  of a verification: tokens in the batch (each running request's last one and the drafts), rising,
                      and the time that the step takes with them, all but drafting. Above 0, and never falling.
    draft_seconds:    of making 0, 1, 2, ... drafts for every request; never falling.

    Beyond the last point the line between the last two goes on; below the first one, its time holds.
    """

    key: Mapping[str, str]
    tokens: tuple[int, ...]
    seconds: tuple[float, ...]
    draft_seconds: tuple[float, ...]

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
        """Seconds of a step with this many tokens in the batch, all but drafting."""
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
        """What `save` wrote; ValueError if it is something else."""
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            points = {name: tuple(document[name]) for name in ("tokens", "seconds", "draft_seconds")}
            return cls(key=dict(document["key"]), **points)
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: expected a cost table in JSON, got {type(error).__name__}: {error}") from error
