"""Runs of the stages on the machine against their oracles: the tests of the kernels share these."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import acceptance_cases
import budgeting_cases
import cases
import oracle
import packing_cases
import pytest
import scoring_cases
import test_acceptance
import test_packing
import test_scoring
import test_selection
import torch
from torch import Tensor

from ptx import driver
from tetris_kernels import score, select_from_logits

ON_MACHINE = cases.Target("triton", "cpu")
CAPABILITIES = {"sm_80": 80, "sm_90": 90, "sm_100": 100}


@pytest.fixture(scope="module", params=CAPABILITIES)
def machine(request: pytest.FixtureRequest) -> Iterator[driver.PtxDriver]:
    """The machine, as each of the GPUs."""
    with driver.active(CAPABILITIES[request.param]) as active:
        yield active


def run_select(machine: driver.PtxDriver, case: cases.Case, budgets: list[int]) -> None:
    """Integers, exactly. Every other budget is the device's."""
    keys = case.order_keys()
    with machine.reading([case.logprobs, *case.rows.values()]):
        for i, budget in enumerate(budgets):
            value = torch.tensor(budget) if i % 2 else budget
            test_selection.check(case, value, keys, budget, ON_MACHINE)


def run_expect(machine: driver.PtxDriver, case: cases.Case, budgets: list[int]) -> None:
    """Bit for bit."""
    values = torch.tensor(budgets, dtype=torch.int64 if len(case.name) % 2 else torch.int32)
    with machine.reading([case.logprobs, values, *case.rows.values()]):
        budgeting_cases.check_expected(case, values, budgeting_cases.sums_of(case), ON_MACHINE.backend)


def run_choose(machine: driver.PtxDriver, case: cases.Case, costs: budgeting_cases.Costs, kind: str) -> None:
    """The same integer."""
    with machine.reading([case.logprobs, *case.rows.values()]):
        budgeting_cases.check_choice(case, costs, budgeting_cases.sums_of(case), ON_MACHINE.backend, kind)


def run_score(machine: driver.PtxDriver, case: scoring_cases.Case, kind: str) -> None:
    """Within the bound that the oracle states."""
    with machine.reading(case.tensors.values()):
        scores = score(case.logits, case.ids, kind=kind, **case.options, backend="triton")
    test_scoring.check(scores, case.expected(kind), kind)
    start = scores.storage_offset()
    around = torch.cat([cases.whole(scores)[:start], cases.whole(scores)[start + scores.numel() :]])
    assert (around == test_scoring.POISON).all()


def run_select_from_logits(
    machine: driver.PtxDriver, case: scoring_cases.Case, kind: str, budgets: list[int], **preferences: Tensor
) -> None:
    """The scores are those of score, bit for bit; the selection is the oracle's of these."""
    options: dict[str, Any] = {"kind": kind, **case.options, "backend": "triton"}
    rows = preferences if case.draft_lens is None else preferences | {"draft_lens": case.draft_lens}
    with machine.reading([*case.tensors.values(), *preferences.values()]):
        expected = score(case.logits, case.ids, **options)
        keys = oracle.batch_keys(expected.tolist(), **{name: values.tolist() for name, values in rows.items()})
        for budget in budgets:
            picked, scores = select_from_logits(case.logits, case.ids, budget, **options, **preferences)
            assert torch.equal(test_scoring.bits(scores), test_scoring.bits(expected))
            assert (picked.lens.tolist(), picked.cu_lens.tolist()) == cases.expected(keys, budget)


def run_pack(machine: driver.PtxDriver, case: packing_cases.Case, capacities: list[int]) -> None:
    """Integers, exactly."""
    with machine.reading(case.tensors.values()):
        for capacity in capacities:
            test_packing.check(case, capacity, ON_MACHINE)


def run_accept(machine: driver.PtxDriver, case: acceptance_cases.Case) -> None:
    """One of the outcomes that float32 may come to."""
    given: list[Any] = [case.target, case.ids, case.uniforms, case.draft, case.temperature]
    with machine.reading([value for value in given if isinstance(value, Tensor)]):
        done = acceptance_cases.check(case, ON_MACHINE)
    test_acceptance.check_outputs(done, case)


Run = Callable[[driver.PtxDriver], None]
