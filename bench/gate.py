"""No number without a green gate: every way to select against the heap of tests/oracle.py, on every input.

An exact one is red where one output differs. One that compares floats is red only where the cut is clear; elsewhere
it is reported how many rows differ and by how much the budget is exceeded.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import oracle
import torch
from torch import Tensor

from bench.inputs import Input
from bench.peers.peer import Peer


@dataclass(frozen=True)
class Verdict:
    """What a peer did on an input."""

    peer: str
    input: str
    red: bool
    differ: int = 0  # rows whose length is not the oracle's
    excess: int = 0  # drafts kept beyond what the oracle keeps, which is the budget; below 0: fewer
    why: str = ""


class RedGate(RuntimeError):
    """Some peer is wrong, and so nothing may be measured."""


def expected(batch: Input) -> list[int]:
    """The oracle's lens."""
    lens = {} if batch.draft_lens is None else {"draft_lens": batch.draft_lens.tolist()}
    kept, _ = oracle.select(batch.logprobs.tolist(), batch.budget, **lens)
    return kept


def check(peers: Sequence[Peer], inputs: Iterable[Input], device: str = "cpu") -> list[Verdict]:
    """A verdict for each peer on each input that it takes. `Unavailable` passes through."""
    verdicts = []
    for batch in inputs:
        right, moved = expected(batch), batch.on(device)
        verdicts += [judge(peer, moved, right) for peer in peers if peer.takes(device, *batch.logprobs.shape)]
    return verdicts


def judge(peer: Peer, batch: Input, right: Sequence[int]) -> Verdict:
    """Runs it with every kind of budget it takes."""
    budgets: list[int | Tensor] = [batch.budget]
    if peer.device_budget:
        budgets.append(torch.tensor(batch.budget, device=batch.logprobs.device))
    verdicts = [_judge(peer, batch, right, budget) for budget in budgets]
    return next((verdict for verdict in verdicts if verdict.red), verdicts[-1])


def _judge(peer: Peer, batch: Input, right: Sequence[int], budget: int | Tensor) -> Verdict:
    given = [tensor for tensor in (batch.logprobs, batch.draft_lens, budget) if isinstance(tensor, Tensor)]
    before = [tensor.clone() for tensor in given]
    lens, cu_lens = peer.select(batch.logprobs, budget, batch.draft_lens)
    for name, output, size in (("lens", lens, len(right)), ("cu_lens", cu_lens, len(right) + 1)):
        if output.dtype != torch.int32 or output.shape != (size,) or output.device != batch.logprobs.device:
            return Verdict(peer.name, batch.name, True, why=f"{name} is {_form(output)}")
    found = lens.tolist()
    differ = sum(a != b for a, b in zip(found, right, strict=True))
    why = ""
    if not all(map(_same_bits, given, before)):
        why = "an input has changed"
    elif cu_lens.tolist() != [0, *itertools.accumulate(found)]:
        why = "cu_lens are not the sums of lens"
    elif differ and peer.exact:
        why = "lens differ"
    elif differ and batch.clear:
        why = "lens differ, though the cut is clear"
    return Verdict(peer.name, batch.name, bool(why), differ, sum(found) - sum(right), why)


def _same_bits(a: Tensor, b: Tensor) -> bool:
    """NaN is not equal to itself."""
    return torch.equal(a.reshape(-1).view(torch.uint8), b.reshape(-1).view(torch.uint8))


def _form(output: Tensor) -> str:
    return f"{output.dtype} {tuple(output.shape)} on {output.device}"


def require_green(verdicts: Sequence[Verdict]) -> None:
    """Raises RedGate, with a line for each red verdict."""
    red = [verdict for verdict in verdicts if verdict.red]
    lines = [f"RED  {v.peer} on {v.input}: {v.why} ({v.differ} rows, {v.excess:+d})" for v in red]
    if red:
        raise RedGate("\n".join([*lines, f"{len(red)} of {len(verdicts)} verdicts are red: nothing is measured"]))
