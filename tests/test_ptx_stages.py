"""The named inputs of every stage, executed as compiled for a GPU, against the oracles; the three GPUs by turns."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

import pytest

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

import acceptance_cases
import budgeting_cases
import cases
import packing_cases
import scoring_cases
from ptx import stages
from ptx.driver import PtxDriver

machine = stages.machine
pytestmark = pytest.mark.usefixtures("poisoned")


def by_turns(inputs: Sequence[Any]) -> pytest.MarkDecorator:
    """Each input on one GPU: those that are there for the same reason stand side by side."""
    pairs = list(zip(itertools.cycle(stages.CAPABILITIES), inputs, strict=False))
    names = [f"{name}-{case.name}" for name, case in pairs]
    return pytest.mark.parametrize(("machine", "case"), pairs, indirect=["machine"], ids=names)


@by_turns(cases.CASES)
def test_select(case: cases.Case, machine: PtxDriver) -> None:
    total = sum(map(len, case.order_keys()))
    stages.run_select(machine, case.on("cpu"), cases.some_budgets(total)[1::2])


@by_turns(cases.CASES)
def test_expected_accepts(case: cases.Case, machine: PtxDriver) -> None:
    total = sum(map(len, case.order_keys()))
    stages.run_expect(machine, case.on("cpu"), [*cases.some_budgets(total)[1::3], -1])


@by_turns(budgeting_cases.COSTS)
def test_choose_budget(case: budgeting_cases.Costs, machine: PtxDriver) -> None:
    kinds = list(budgeting_cases.REQUESTS)
    batch = budgeting_cases.BATCHES[len(case.name) % len(budgeting_cases.BATCHES)]
    stages.run_choose(machine, batch.on("cpu"), case, kinds[len(case.tokens) % len(kinds)])


@by_turns(scoring_cases.CASES)
def test_score(case: scoring_cases.Case, machine: PtxDriver) -> None:
    stages.run_score(machine, case.on("cpu"), scoring_cases.KINDS[len(case.name) % 3])


@by_turns(packing_cases.CASES)
def test_pack(case: packing_cases.Case, machine: PtxDriver) -> None:
    stages.run_pack(machine, case.on("cpu"), packing_cases.some_capacities(case.num_tokens())[::2])


@by_turns(acceptance_cases.SHAPES + acceptance_cases.KINDS + acceptance_cases.LAYOUTS)
def test_accept(case: acceptance_cases.Case, machine: PtxDriver) -> None:
    stages.run_accept(machine, case.on("cpu"))
