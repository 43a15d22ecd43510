"""Runs for tests: parts of recorded ones, and made ones."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from tetris_decode.traces import Run


def head(run: Run, requests: int) -> Run:
    """The first requests of a run."""
    rows, tokens = run.num_rows[:requests].sum(), run.num_tokens[:requests].sum()
    columns = {name: getattr(run, name)[:rows] for name in ("ids", "log_q", "acceptance", "accepted")}
    per_request = {name: getattr(run, name)[:requests] for name in ("prompts", "limits", "num_tokens")}
    return replace(run, tokens=run.tokens[:tokens], **per_request, **columns)


def made_run(log_q, accepted, num_tokens, *, name: str = "made@T0") -> Run:
    """A greedy run of rows [M, K] whose texts end at their limits; all token ids are 1."""
    accepted = np.array(accepted, np.bool_)
    return Run(
        name=name,
        about={"model": "none"},
        drawn=False,
        prompts=tuple(f"made/{r}" for r in range(len(num_tokens))),
        limits=np.array(num_tokens),
        num_tokens=np.array(num_tokens),
        tokens=np.ones(sum(num_tokens), np.uint16),
        ids=np.ones(accepted.shape, np.uint16),
        log_q=np.array(log_q, np.float32),
        acceptance=accepted.astype(np.float16),
        accepted=accepted,
    )
