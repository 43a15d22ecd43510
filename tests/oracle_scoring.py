"""score in plain Python floats: exact but for the rounding of exp and log, a dozen digits below float32."""

from __future__ import annotations

import math
from collections.abc import Sequence

NAN, INF = math.nan, math.inf


def scale_of(temperature: float) -> float:
    """What logits are multiplied with. A temperature that is not above 0 counts as 1."""
    if not temperature > 0:
        return 1.0
    return min(max(1 / temperature, 2.0**-64), 2.0**64)


def score_row(logits: Sequence[float], draft_id: int, kind: str, temperature: float) -> float:
    """The score of one draft from the logits at its position."""
    largest = max(logits)
    if any(math.isnan(x) or x == INF for x in logits) or largest == -INF:
        return NAN
    scaled = [(x - largest) * scale_of(temperature) for x in logits]
    total = math.log(math.fsum(map(math.exp, scaled)))
    if kind == "top":
        return -total
    if kind == "collision":
        return math.log(math.fsum(math.exp(2 * x) for x in scaled)) - 2 * total
    return scaled[draft_id] - total if 0 <= draft_id < len(logits) else -INF


def score(
    logits: Sequence[Sequence[Sequence[float]]],
    draft_ids: Sequence[Sequence[int]],
    kind: str,
    temperatures: Sequence[float],
    draft_lens: Sequence[int],
) -> list[list[float]]:
    """Every draft's score; drafts that are not real score -inf."""
    return [
        [
            score_row(row, draft_id, kind, temperature) if j < length else -INF
            for j, (row, draft_id) in enumerate(zip(rows, ids, strict=True))
        ]
        for rows, ids, temperature, length in zip(logits, draft_ids, temperatures, draft_lens, strict=True)
    ]


def tolerance(exact: float, kind: str) -> float:
    """How far a float32 score may be off, from what its steps may, in units of rounding u = 2^-24.

    exp(d) is off by 4 u in the function and 5 u x |d| in its argument: the difference, 1 / temperature, log2(e), and
    two products. Averaged over the probabilities, |d| is at most 4 (1 + |score|) for up to 2^18 tokens. A sum of
    positive terms is off by u for each addition on a term's way: at most 72 in a chunk and 36 over the chunks, less
    in most. The log is off by 4 u of itself. All that is less than 128 u x (1 + |score|); `collision` takes twice
    the log of one sum, and once that of another with twice the |d|.
    """
    return 2.0**-17 * (1 + abs(exact)) * (4 if kind == "collision" else 1)
