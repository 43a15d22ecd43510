"""The small stages around `select` on a GPU, those that see no logits: times by graph replay.

Smooth inputs at half of the drafts. What is timed is right on every batch that is timed, or RedGate: the same bits as
the torch backend on the CPU; what a calibration learns, to a thousandth, as a score at the border of two bins may count
in either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from bench import gpu_time, inputs
from bench.gate import RedGate
from bench.gpu_results import Row
from tetris_kernels import Calibration, Selection, choose_budget, expected_accepts, pack, select

FRACTION = 0.5
SIZES = 64  # budgets or sizes of a verification, the most that there may be


class Batch(NamedTuple):
    """What the stages take of N requests of K drafts; every optional tensor says what its absence means."""

    logprobs: Tensor
    budget: Tensor
    draft_lens: Tensor
    min_lens: Tensor
    max_lens: Tensor
    log_weights: Tensor
    ids: Tensor  # [N, K]
    lens: Tensor  # [N] int32, the selection
    counts: Tensor  # [N] int32 of accept: a random part of the selection was accepted
    sizes: Tensor  # [SIZES] int32, tokens in a verification
    seconds: Tensor  # [SIZES], 1 without drafts and 1 / 2N more for each

    @classmethod
    def drawn(cls, shape: tuple[int, int], seed: int) -> Batch:
        """On the CPU."""
        batch = inputs.make("smooth", *shape, FRACTION, start=seed * inputs.SEEDS)
        n, k = shape
        generator = torch.Generator().manual_seed(seed)
        lens = select(batch.logprobs, batch.budget).lens
        kept = torch.rand(n, generator=generator)
        whole = torch.full((n,), k, dtype=torch.int32)
        sizes = torch.linspace(n, n + n * k, SIZES).int()
        return cls(
            logprobs=batch.logprobs,
            budget=torch.tensor(batch.budget, dtype=torch.int32),
            draft_lens=whole,
            min_lens=torch.zeros_like(whole),
            max_lens=whole.clone(),
            log_weights=torch.zeros(n),
            ids=torch.randint(32000, shape, generator=generator),
            lens=lens,
            counts=(kept * (lens + 1)).int() + 1,
            sizes=sizes,
            seconds=1 + (sizes - n) / (2 * n),
        )

    def to(self, device: str) -> Batch:
        return Batch(*(tensor.to(device) for tensor in self))

    @property
    def preferences(self) -> dict[str, Tensor]:
        names = ("draft_lens", "min_lens", "max_lens", "log_weights")
        return {name: getattr(self, name) for name in names}


def _pack(b: Batch) -> Sequence[Tensor]:
    n = len(b.ids)
    return pack(Selection(b.lens, b.lens), b.ids, b.ids[:, 0], b.ids[:, 0], capacity=n + b.ids.numel() // 2)


STAGES: dict[str, Callable[[Batch], Sequence[Tensor]]] = {
    "select": lambda b: select(b.logprobs, b.budget),
    "select, all optional tensors": lambda b: select(b.logprobs, b.budget, **b.preferences),
    "pack": _pack,
    f"expected_accepts of {SIZES}": lambda b: [expected_accepts(b.logprobs, b.sizes)],
    f"choose_budget of {SIZES}": lambda b: [choose_budget(b.logprobs, b.sizes, b.seconds)],
    f"choose_budget of {SIZES}, argmax": lambda b: [
        choose_budget(b.logprobs, b.sizes, b.seconds, rule="argmax", greedy=True)
    ],
}


def require_same(stage: str, batch: Batch, device: str) -> None:
    """The stage on that device has the bits of the torch backend on the CPU."""
    ours, wanted = (STAGES[stage](batch.to(where)) for where in (device, "cpu"))
    if not all(torch.equal(a.cpu(), b) for a, b in zip(ours, wanted, strict=True)):
        raise RedGate(f"{stage} on {device} is not what it is on the CPU: nothing is measured")


def learned(batch: Batch) -> tuple[Calibration, dict[str, Callable[[], object]]]:
    """A calibration of that batch's device, and its parts as calls: torch alone, no kernels of this library."""
    calibration = Calibration(batch.ids.shape[1], device=batch.ids.device, warmup=0, refit_every=2**30)
    coupled = torch.zeros_like(batch.counts, dtype=torch.bool)
    return calibration, {
        "Calibration, scores": lambda: calibration(batch.logprobs, kind="token"),
        "Calibration, update": lambda: calibration.update(
            batch.logprobs, batch.lens, batch.counts, coupled, kind="token"
        ),
        "Calibration, fit": calibration.refit,
    }


def require_alike(batch: Batch, device: str) -> None:
    """A calibration learns there what it learns on the CPU."""
    found = []
    for where in (device, "cpu"):
        moved = batch.to(where)
        calibration, calls = learned(moved)
        calls["Calibration, update"]()
        calls["Calibration, fit"]()
        found.append(calibration(moved.logprobs, kind="token").cpu())
    if not torch.allclose(*found, rtol=1e-3, atol=1e-3):
        raise RedGate(f"a calibration on {device} is not what it is on the CPU: nothing is measured")


def measure() -> Iterator[Row]:
    """A row for each stage and size of batch."""
    for shape in inputs.SHAPES:
        some = [Batch.drawn(shape, seed) for seed in range(gpu_time.SEEDS)]
        moved = [batch.to("cuda") for batch in gpu_time.in_turn(some)]
        for stage, run in STAGES.items():
            for batch in some:
                require_same(stage, batch, "cuda")
            yield _row(stage, shape, [partial(run, batch) for batch in moved])
        require_alike(some[0], "cuda")
        _, calls = learned(moved[0])
        for stage, call in calls.items():
            yield _row(stage, shape, [call] * 4)


def _row(stage: str, shape: tuple[int, int], calls: list[gpu_time.Call]) -> Row:
    microseconds, _ = gpu_time.warm(calls)
    return {"requests": shape[0], "drafts": shape[1], "stage": stage, "us": round(microseconds, 2)}
