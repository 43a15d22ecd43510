"""Every catalogue variant, executed as compiled for each GPU, by the launcher that users call, against the oracles.

Each has inputs of its own: full and ragged shapes of its bucket, ties, all layouts of loads, budgets at the edges.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Iterator
from dataclasses import replace

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

import acceptance_cases
import budgeting_cases
import packing_cases
import scoring_cases
from cases import INF, NAN, Case, certain, coarse, far, lens, peaked, poisoned
from ptx import stages
from ptx.driver import PtxDriver
from ptx.stages import Run

from tetris_kernels.kernels import acceptance, catalogue, expectation, scoring, selection

machine = stages.machine
pytestmark = pytest.mark.usefixtures("poisoned")


def ragged(n: int, most: int, dtype: torch.dtype = torch.int32) -> torch.Tensor:
    """Lengths below 0, of 0, up to `most` and beyond it."""
    values = torch.randint(-1, most + 2, (n,), generator=torch.Generator().manual_seed(n), dtype=dtype)
    values[n // 2] = 2**31 - 1
    return values


def weights(n: int) -> torch.Tensor:
    return torch.tensor([(0.0, 0.7, -2.5, 300.0, NAN, -INF, INF, -0.7)[i % 8] for i in range(n)])


def select_batches(kind: str, n: int, k: int) -> list[Case]:
    """In the bucket of n x k: all of it, and one less of both."""
    m, j = n - 1, k - 1
    if kind == "plain":
        return [
            Case("full, 60 % zeros", certain(n, k)),
            Case("transposed, tied", coarse(j, m).T),
            Case("all tied", torch.full((m, k), -0.5)),
            Case("strided", peaked(2 * m, 2 * j)[::2, ::2]),
        ]
    if kind == "full":
        some = ragged(n, k)
        return [
            Case("all arguments", coarse(n, k), some, ragged(n, 2, torch.int64), some.flip(0), weights(n)),
            Case("poison beyond the lens", poisoned(certain(m, j), ragged(m, j)), ragged(m, j, torch.int64)),
            Case("keys beyond 2^24", far(m, k, k // 2), log_weights=torch.linspace(-80, 80, m)),
        ]
    return [
        Case("bf16", certain(n, k).bfloat16()),
        Case("fp16, transposed, ragged", coarse(j, m).half().T, ragged(m, j)),
        Case("bf16, odd rows, floors", peaked(m, j).bfloat16(), min_lens=ragged(m, 1), log_weights=weights(m)),
    ]


def select_runs(name: str) -> Iterator[Run]:
    _, kind, shape = name.split("-")
    n, k = map(int, shape.split("x"))
    for i, case in enumerate(select_batches(kind, n, k)):
        assert selection.bucket(*case.logprobs.shape)[:2] == (n, k)
        total = sum(map(len, case.order_keys()))
        assert total >= n
        budgets = [0, 1, total // 3, total // 2, total - 1, total][i % 2 :: 2]
        yield functools.partial(stages.run_select, case=case, budgets=budgets)


def expect_runs(name: str) -> Iterator[Run]:
    """The batches of select's variants in float32."""
    n, k = map(int, name.split("-")[1].split("x"))
    for i, case in enumerate([*select_batches("plain", n, k), *select_batches("full", n, k)]):
        assert expectation.bucket(*case.logprobs.shape)[:2] == (n, k)
        total = sum(map(len, case.order_keys()))
        budgets = [[-1, total // 2], [total // 3], [1, total - 1], [2**31 - 1]][i % 4]
        yield functools.partial(stages.run_expect, case=case, budgets=budgets)


def choose_runs(name: str) -> Iterator[Run]:
    kinds = itertools.cycle(budgeting_cases.REQUESTS)
    for case, costs, kind in zip(itertools.cycle(budgeting_cases.BATCHES), budgeting_cases.COSTS, kinds, strict=False):
        if len(costs.tokens) < 10:
            yield functools.partial(stages.run_choose, case=case, costs=costs, kind=kind)


def score_runs(name: str) -> Iterator[Run]:
    """Rows of whole pieces of 16 bytes and others, within a chunk and over two, or more than one program's rows."""
    batch = scoring_cases.batch
    named = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
    dtype = named[name.split("-")[-1]] if name != "score" else torch.float32
    heats = torch.tensor([0.5, 1.0, 0.0, NAN, 30.0])
    batches = [
        batch("wide", 5, 3, 40, lambda x: x.to(dtype), temperature=heats, draft_lens=ragged(5, 3)),
        batch("odd", 3, 2, 41, lambda x: x.to(dtype), temperature=0.7),
        batch("two chunks", 1, 2, 8200, lambda x: x.to(dtype)),
        batch("strided", 4, 2, 50, lambda x: x.to(dtype).permute(2, 0, 1).contiguous().permute(1, 2, 0)),
        batch("many rows", 17, 4, 3, lambda x: x.to(dtype), draft_lens=ragged(17, 4, torch.int64)),
    ]
    for case, kind in itertools.product(batches, scoring_cases.KINDS):
        yield functools.partial(stages.run_score, case=case, kind=kind)


def score_and_select_runs(name: str) -> Iterator[Run]:
    """Few requests have drafts: the kernel does as much, and the chunks of absent drafts cost little."""
    n, k = map(int, name.split("-")[-1].split("x"))
    assert (n, k) in [bucket[:2] for bucket in scoring.BUCKETS]
    for rows, drafts, kind, every in (
        (n, k, "token", n // 16),
        (n - 1, k - 1, "collision", n // 8),
        (n // 2 + 1, k, "top", 8),
    ):
        some = lens([0 if i % every else (5 * i // every) % (drafts + 2) for i in range(rows)])
        case = scoring_cases.batch("", rows, drafts, 9, draft_lens=some)
        preferences = {"min_lens": ragged(rows, 1), "log_weights": weights(rows)} if kind == "collision" else {}
        total = int(some.clamp(max=drafts).sum())
        run = functools.partial(stages.run_select_from_logits, case=case, kind=kind)
        yield functools.partial(run, budgets=[1, total // 2], **preferences)


def pack_runs(name: str) -> Iterator[Run]:
    dtype = torch.int32 if name == "pack-int32" else torch.int64
    for n, k, options in [
        (33, 5, {}),
        (70, 4, {"context_lens": ragged(70, 50), "draft_lens": ragged(70, 4, torch.int64)}),
        (1, 256, {"lens": lens([256])}),
        (0, 3, {}),
    ]:
        case = packing_cases.batch(n, k, n, draft_ids=packing_cases.drafts(n, k, dtype), pad_id=7, **options)
        capacities = packing_cases.some_capacities(case.num_tokens())
        yield functools.partial(stages.run_pack, case=case, capacities=capacities)
    columns = packing_cases.batch(40, 6, 2, draft_ids=packing_cases.drafts(6, 40, dtype).T)
    yield functools.partial(stages.run_pack, case=columns, capacities=[columns.num_tokens(), 1100])


def accept_runs(name: str) -> Iterator[Run]:
    """The calls of all dtypes and sizes that need the variant, a few of each."""
    dtypes = acceptance_cases.DTYPES
    found = 0
    for k, target, draft in itertools.product((3, 33), dtypes, (None, *dtypes)):
        if name not in [variant.name for variant in acceptance._needed(target, draft, k).values()]:
            continue
        found += 1
        if found > 2:
            return
        # Rows of whole pieces of 16 bytes in two chunks; others, with ties and temperatures.
        for vocabulary, spread, n in ((8200, 2.0, 2), (41, 0.5, 5)):
            heats = torch.tensor([1.0, 0.0, 0.5, NAN, 2.0])
            case = acceptance_cases.batch(
                name,
                n if k < 32 else 2,
                k,
                vocabulary if k < 32 else 41,
                seed=found,
                full=draft is not None,
                spread=spread,
                bonus="direct" if found == 2 else "coupled",
            )
            if vocabulary == 41:
                case = replace(case, temperature=heats[: len(case.lens)], ids=case.ids.long().T.contiguous().T)
            draft_logits = None if case.draft is None or draft is None else case.draft.to(draft)
            yield functools.partial(
                stages.run_accept, case=replace(case, target=case.target.to(target), draft=draft_logits)
            )


def runs_of(name: str) -> Iterator[Run]:
    for prefix, runs in {
        "select-": select_runs,
        "expect-": expect_runs,
        "choose-": choose_runs,
        "score-and-select-": score_and_select_runs,
        "score": score_runs,
        "pack-": pack_runs,
        "accept-": accept_runs,
    }.items():
        if name.startswith(prefix):
            return runs(name)
    raise AssertionError(f"no inputs for {name}")


@pytest.mark.parametrize("name", [variant.name for variant in catalogue.variants()])
def test_variant(name: str, machine: PtxDriver) -> None:
    before, launches = machine.executed[name], len(machine.counts)
    runs = 0
    for run in runs_of(name):
        run(machine)
        runs += 1
    assert runs >= 3
    assert [launched for launched, _ in machine.counts[launches:]].count(name) >= 3
    assert machine.executed[name] > before
