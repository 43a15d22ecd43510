"""Recorded drafts at every position of texts, from which any policy can be replayed, and the file they are kept in.

Row i of a request holds the K drafts that follow its first i + 1 generated tokens. A replay that has t tokens of the
request reads row t - 1, and after a step that emits n tokens goes on at row t - 1 + n: whatever a policy verifies, the
drafts it would have met are there. How true that is depends on the drafts (`Run.drawn`):

- Drafts that were not drawn, those of n-grams at any temperature and all drafts of a greedy request, do not change
  the text, since the target's token is emitted whatever was drafted. A draft is accepted if it is the text's token
  and all before it were: the replay does what the live decoder does on the same text.
- Drafts that were drawn at a temperature decide, where they are accepted, how the text goes on. The replay goes on
  along the recorded text all the same, in which another draft may stand at that place: an approximation. Each row by
  itself, and the outcome of its first draft with the token that follows, are as the decoder has them.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

NUM_DRAFTS = 8
FILE = "data/traces.npz"


@dataclass(frozen=True, eq=False)
class Run:
    """R requests, recorded with one drafter at one temperature. M rows, the requests' one after the other.

    name:       drafter@temperature.
    about:      how it was recorded: model, drafter, temperature, ...
    drawn:      whether the drafts were drawn, so that a replay is approximate.
    prompts:    names of the requests' prompts.
    limits:     [R] int64, the most tokens each might generate.
    num_tokens: [R] int64, the tokens it did generate, 1 or more; request r has num_tokens[r] - 1 rows.
    tokens:     [sum(num_tokens)] unsigned, the texts' token ids.
    ids:        [M, K] unsigned, the drafted token ids.
    log_q:      [M, K] float32, natural log of the drafter's probability of each, given those before it: what `select`
                compares.
    acceptance: [M, K] float16, min(1, p / q) of each, given those before it: how likely the target accepts it. q is 1
                if drafts were not drawn; 0 or 1 if the target is greedy.
    accepted:   [M, K] bool, the outcome of that test, also past the first rejection.

    A row has `draft_lens` drafts; what is beyond is 0.
    """

    name: str
    about: Mapping[str, str]
    drawn: bool
    prompts: tuple[str, ...]
    limits: NDArray[np.int64]
    num_tokens: NDArray[np.int64]
    tokens: NDArray[np.unsignedinteger[Any]]
    ids: NDArray[np.unsignedinteger[Any]]
    log_q: NDArray[np.float32]
    acceptance: NDArray[np.float16]
    accepted: NDArray[np.bool_]

    def __post_init__(self) -> None:
        num_requests, num_rows = len(self.prompts), int(np.maximum(self.num_tokens - 1, 0).sum())
        num_drafts = self.ids.shape[-1] if self.ids.ndim else 0
        for name, kind, shape in (
            ("limits", "i", (num_requests,)),
            ("num_tokens", "i", (num_requests,)),
            ("tokens", "u", (int(self.num_tokens.sum()),)),
            ("ids", "u", (num_rows, num_drafts)),
            ("log_q", "f", (num_rows, num_drafts)),
            ("acceptance", "f", (num_rows, num_drafts)),
            ("accepted", "b", (num_rows, num_drafts)),
        ):
            array = getattr(self, name)
            if array.dtype.kind != kind or array.shape != shape:
                got = f"{array.dtype} {list(array.shape)}"
                raise ValueError(f"{self.name}, {name}: expected dtype kind {kind!r} and {list(shape)}, got {got}")
        if num_requests == 0:
            raise ValueError(f"{self.name}, prompts: expected at least one, got none")
        if (self.num_tokens < 1).any() or (self.limits < self.num_tokens).any():
            raise ValueError(f"{self.name}, num_tokens: expected 1 up to the request's limit, got others")
        if not (self.log_q <= 0).all():
            raise ValueError(f"{self.name}, log_q: expected logarithms of probabilities, got {self.log_q.max()}")
        if not ((self.acceptance >= 0) & (self.acceptance <= 1)).all():
            raise ValueError(f"{self.name}, acceptance: expected probabilities, got others")

    @property
    def num_requests(self) -> int:
        return len(self.prompts)

    @property
    def num_drafts(self) -> int:
        """K."""
        num_drafts: int = self.ids.shape[1]
        return num_drafts

    @property
    def num_rows(self) -> NDArray[np.int64]:
        """[R] int64, rows of each request."""
        return self.num_tokens - 1

    @property
    def request(self) -> NDArray[np.int64]:
        """[M] int64, the request of each row."""
        return np.repeat(np.arange(self.num_requests), self.num_rows)

    @property
    def generated(self) -> NDArray[np.int64]:
        """[M] int64, the tokens that the row's request has when the drafts are made: 1, 2, ..."""
        rows = self.num_rows
        return np.arange(rows.sum()) - np.repeat(rows.cumsum() - rows, rows) + 1

    @property
    def draft_lens(self) -> NDArray[np.int64]:
        """[M] int64, drafts in each row: up to K, and none that the request has no use for."""
        lens: NDArray[np.int64] = np.clip(self.limits[self.request] - self.generated - 1, 0, self.num_drafts)
        return lens

    def text(self, request: int) -> list[int]:
        """The token ids that a request generated."""
        end = int(self.num_tokens[: request + 1].sum())
        text: list[int] = self.tokens[end - int(self.num_tokens[request]) : end].tolist()
        return text


def save(path: Path, runs: Iterable[Run]) -> None:
    """Write runs of different names to a compressed .npz; the same runs give the same bytes."""
    arrays: dict[str, Any] = {}
    for run in runs:
        head = json.dumps({"about": dict(run.about), "drawn": run.drawn, "prompts": run.prompts})
        arrays[f"{run.name}/head"] = np.array(head)
        arrays[f"{run.name}/limits"] = run.limits.astype(np.uint32)
        arrays[f"{run.name}/num_tokens"] = run.num_tokens.astype(np.uint32)
        arrays[f"{run.name}/accepted"] = np.packbits(run.accepted, axis=1)
        for name in ("tokens", "ids", "log_q", "acceptance"):
            arrays[f"{run.name}/{name}"] = getattr(run, name)
    # Beside the old file until it is whole, so that an interrupted save leaves that one.
    partial = path.with_name(path.name + ".partial")
    with partial.open("wb") as file:
        np.savez_compressed(file, **arrays)
    partial.replace(path)


def load(path: Path) -> dict[str, Run]:
    """What `save` wrote, by name; ValueError if it is something else, OSError if there is nothing to read."""
    with path.open("rb") as file:
        return _read(file, str(path))


def load_runs() -> dict[str, Run]:
    """The runs that come with the package, by name. data/README.md says how they were recorded."""
    with resources.files("tetris_decode").joinpath(FILE).open("rb") as file:
        return _read(file, FILE)


def _read(file: IO[bytes], where: str) -> dict[str, Run]:
    try:
        with np.load(file, allow_pickle=False) as data:
            arrays = {key: data[key] for key in data.files}
        names = [key.removesuffix("/head") for key in arrays if key.endswith("/head")]
        if not names:
            raise ValueError("no run in it")
        return {name: _run(name, arrays) for name in names}
    except KeyError as error:
        raise ValueError(f"{where}: expected traces of tetris-decode record, got none of {error}") from error
    except (AttributeError, TypeError, ValueError, EOFError, OSError) as error:
        raise ValueError(f"{where}: expected traces of tetris-decode record, got: {error}") from error


def _run(name: str, arrays: Mapping[str, NDArray[Any]]) -> Run:
    head = json.loads(str(arrays[f"{name}/head"]))
    ids = arrays[f"{name}/ids"]
    packed = arrays[f"{name}/accepted"]
    return Run(
        name=name,
        about=head["about"],
        drawn=head["drawn"],
        prompts=tuple(head["prompts"]),
        limits=arrays[f"{name}/limits"].astype(np.int64),
        num_tokens=arrays[f"{name}/num_tokens"].astype(np.int64),
        tokens=arrays[f"{name}/tokens"],
        ids=ids,
        log_q=arrays[f"{name}/log_q"],
        acceptance=arrays[f"{name}/acceptance"],
        accepted=np.unpackbits(packed, axis=1, count=ids.shape[1]).astype(np.bool_),
    )
