"""Defects put into the PTX of real kernels: the machine reports them, or the result shows them."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Callable, Iterator

import pytest

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

import acceptance_cases
import packing_cases
from cases import Case, coarse
from ptx import driver, stages
from ptx.driver import PtxDriver
from ptx.faults import Fault, OutOfBounds, Race

pytestmark = pytest.mark.usefixtures("poisoned")


@pytest.fixture(scope="module")
def machine() -> Iterator[PtxDriver]:
    with driver.active(90) as active:
        yield active


def run_select(machine: PtxDriver) -> None:
    stages.run_select(machine, Case("", coarse(200, 7)), [700, 467])


def run_pack(machine: PtxDriver) -> None:
    stages.run_pack(machine, packing_cases.batch(70, 4, 3), [200])


def run_accept(machine: PtxDriver) -> None:
    stages.run_accept(machine, acceptance_cases.batch("", 1, 33, 20, 1, True, lens=(30,)))


KERNELS = {
    "select_kernel": run_select,
    "pack_kernel": run_pack,
    "decide_kernel": run_accept,
    "draw_kernel": run_accept,
}


def outcomes(
    machine: PtxDriver, kernel: str, line: str, change: Callable[[str], str]
) -> Counter[type[BaseException] | None]:
    """What comes of changing each line of a kernel that starts so, one at a time: an error, or None."""
    run, seen = KERNELS[kernel], []

    def edited(at: int | None) -> Callable[[str], str]:
        def edit(ptx: str) -> str:
            if f".entry {kernel}(" not in ptx:
                return ptx
            lines = ptx.split("\n")
            if at is None:
                seen[:] = [i for i, text in enumerate(lines) if re.match(rf"\s*(@!?%p\d+ )?{re.escape(line)}", text)]
            else:
                lines[at] = change(lines[at])
            return "\n".join(lines)

        return edit

    found: Counter[type[BaseException] | None] = Counter()
    try:
        machine.edit = edited(None)
        run(machine)
        for at in list(seen):
            machine.edit = edited(at)
            try:
                run(machine)
            except (Fault, AssertionError) as error:
                found[type(error)] += 1
            else:
                found[None] += 1
    finally:
        machine.edit = lambda ptx: ptx
    return found


@pytest.mark.parametrize("kernel", KERNELS)
def test_deleted_barriers_are_races(kernel: str, machine: PtxDriver) -> None:
    """Most of them: between some, nothing is both written and read. None goes wrong without a report."""
    found = outcomes(machine, kernel, "bar.sync", lambda line: "")
    assert set(found) <= {Race, None}
    assert found[Race] >= 3 and found[Race] > found[None]


def _shifted(line: str) -> str:
    """The same store one element further."""
    size = int(re.search(r"\.b(\d+)", line)[1]) // 8  # type: ignore[index]  # every store has a type
    return re.sub(r"\[ ?(%rd\d+)(?: ?\+ ?(\d+))? ?\]", lambda m: f"[{m[1]}+{int(m[2] or 0) + size}]", line)


def test_shifted_stores_are_out_of_bounds(machine: PtxDriver) -> None:
    """Of select: each store's last element is one of an output, or shows in the result."""
    assert _shifted("@%p1 st.global.b32 [ %rd2 + 4 ], { %r1 };") == "@%p1 st.global.b32 [%rd2+8], { %r1 };"
    found = outcomes(machine, "select_kernel", "st.global", _shifted)
    assert found[OutOfBounds] >= 2 and set(found) <= {OutOfBounds, AssertionError}


def test_shuffles_of_other_lanes_show(machine: PtxDriver) -> None:
    """The results depend on what is computed: a sum over the wrong lanes is another selection."""
    found = outcomes(
        machine, "select_kernel", "shfl.sync.up", lambda line: re.sub(r", (\d+), 0, -1", ", 3, 0, -1", line)
    )
    assert found[AssertionError] > found[None]
