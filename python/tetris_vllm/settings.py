"""What the user asks for: environment variables TETRIS_VLLM_..., and the field `additional_config` of an engine."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

PREFIX = "TETRIS_VLLM_"
FIELD = "tetris"  # of additional_config
SWITCH = PREFIX + "BUDGET"
# Where the engine's process leaves its counters for the server's; set by the plugin itself.
COUNTERS = PREFIX + "COUNTERS_DIR"
SCORES = ("auto", "token", "top", "collision", "history")


class Budget(NamedTuple):
    """How many drafts a step verifies: kind is "all", "absolute", "per request" or "adaptive"; amount of drafts."""

    kind: str
    amount: float = 0.0


@dataclass(frozen=True)
class Settings:
    """
    budget:     drafts that a step verifies.
    costs:      a cost table in JSON (`tetris_kernels.CostTable`), for an adaptive budget.
    score:      by what drafts are compared, see `rules.score_kind`.
    min_drafts: of each request that come before all others; they count towards the budget.
    min_batch:  with fewer requests than that in a step, everything is verified.
    """

    budget: Budget
    costs: Path | None = None
    score: str = "auto"
    min_drafts: int = 0
    min_batch: int = 0


def from_environment(environment: Mapping[str, str]) -> Settings | None:
    """What the variables say, or None: without TETRIS_VLLM_BUDGET the plugin is off.

    Raises:
        ValueError: an unknown variable of that prefix, or a value that is none of its.
    """
    given = {name: value for name, value in environment.items() if name.startswith(PREFIX) and name != COUNTERS}
    known = {PREFIX + key.upper(): key for key in _PARSERS}
    for name in given:
        if name not in known:
            raise ValueError(f"{name}: expected one of {', '.join(sorted(known))}, got an unknown variable")
    if not given.get(SWITCH):
        return None
    return _parsed({known[name]: (name, value) for name, value in given.items()}, Settings(Budget("all")))


def for_engine(environment: Mapping[str, str], additional_config: Any) -> Settings:
    """The settings of an engine, whose `additional_config={"tetris": {"budget": ..., ...}}` has the last word.

    Raises:
        TypeError: a field that is no mapping.
        ValueError: an unknown key, or a value that is none of its; as `from_environment`.
    """
    field = additional_config.get(FIELD, {}) if isinstance(additional_config, Mapping) else {}
    if not isinstance(field, Mapping):
        raise TypeError(f"additional_config[{FIELD!r}]: expected a mapping, got {type(field).__name__}")
    for key in field:
        if key not in _PARSERS:
            raise ValueError(f"additional_config[{FIELD!r}]: expected keys of {', '.join(_PARSERS)}, got {key!r}")
    given = {key: (f"additional_config[{FIELD!r}][{key!r}]", str(value)) for key, value in field.items()}
    return _parsed(given, from_environment(environment) or Settings(Budget("all")))


def _parsed(given: Mapping[str, tuple[str, str]], defaults: Settings) -> Settings:
    parsed = {key: _PARSERS[key](name, value.strip()) for key, (name, value) in given.items()}
    settings = replace(defaults, **parsed)
    if settings.budget.kind == "adaptive" and settings.costs is None:
        raise ValueError(f"{PREFIX}COSTS: expected the file of a cost table with an adaptive budget, got none")
    return settings


def _budget(name: str, text: str) -> Budget:
    if text in ("all", "adaptive"):
        return Budget(text)
    if text.isascii() and text.isdigit():
        return Budget("absolute", int(text))
    per_request = _number(text.removesuffix("x")) if text.endswith("x") else math.nan
    if not 0 <= per_request < math.inf:
        forms = "a number of drafts, drafts per request as in '1.5x', 'adaptive' or 'all'"
        raise ValueError(f"{name}: expected {forms}, got {text!r}")
    return Budget("per request", per_request)


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _count(name: str, text: str) -> int:
    if not (text.isascii() and text.isdigit()):
        raise ValueError(f"{name}: expected an integer from 0 on, got {text!r}")
    return int(text)


def _score(name: str, text: str) -> str:
    if text not in SCORES:
        raise ValueError(f"{name}: expected one of {', '.join(SCORES)}, got {text!r}")
    return text


def _file(name: str, text: str) -> Path:
    if not Path(text).is_file():
        raise ValueError(f"{name}: expected a file that exists, got {text!r}")
    return Path(text)


_PARSERS: dict[str, Callable[[str, str], Any]] = {
    "budget": _budget,
    "costs": _file,
    "score": _score,
    "min_drafts": _count,
    "min_batch": _count,
}
