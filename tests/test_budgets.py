"""No variant takes much more registers or code than budgets.json says, on any target."""

from __future__ import annotations

import os
import re
import types

import pytest

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

import budgets
import machine_code
import triton

BUDGETS = budgets.read()
HERE = pytest.mark.skipif(
    BUDGETS is None, reason=f"budgets.json has no rows of Triton {triton.__version__}; `make budgets` writes them"
)


@HERE
@pytest.mark.parametrize("row", budgets.ROWS)
def test_row_keeps_to_its_budget(row):
    budget = BUDGETS.get(row)
    assert budget is not None, f"{row} is not in budgets.json; `make budgets` writes it"
    grown = budgets.growth(row, budget, budgets.measure(row))
    assert not grown, f"{'; '.join(grown)}. If it is meant, `make budgets` writes the file again."


@HERE
def test_no_row_is_stale():
    assert BUDGETS.keys() - budgets.ROWS.keys() == set()


@pytest.mark.parametrize(
    ("old", "new", "fits"),
    [
        (100, 109, True),
        (100, 110, True),
        (100, 111, False),
        (1000, 1101, False),
        (100, 3, True),
        (40, 44, True),
        (40, 45, False),
        # A tenth of these is less than the slack.
        (8, 10, True),
        (8, 11, False),
        (0, 2, True),
        (0, 3, False),
    ],
)
def test_growth(old, new, fits):
    found = {"registers": 30, "instructions": new}
    messages = budgets.growth("pack sm_80", {"registers": 30, "instructions": old}, found)
    assert messages == ([] if fits else [f"pack sm_80: instructions grew from {old} to {new}"])


def test_every_quantity_that_grew_is_named():
    messages = budgets.growth(
        "pack gfx942", {"vgprs": 40, "sgprs": 40, "instructions": 9}, dict(vgprs=80, sgprs=50, instructions=9)
    )
    assert messages == ["pack gfx942: vgprs grew from 40 to 80", "pack gfx942: sgprs grew from 40 to 50"]


def test_other_quantities_are_not_compared():
    (message,) = budgets.growth("pack sm_80", {"registers": 9}, {"vgprs": 9})
    assert message == "pack sm_80: expected registers, got vgprs"


def test_rows_of_another_triton_are_not_read(tmp_path):
    path = tmp_path / "budgets.json"
    rows = {"pack sm_80": {"registers": 9}, "pack sm_90": {"registers": 10}}
    budgets.write(rows, path, version="1.2.3")
    assert budgets.read(path, "1.2.3") == rows
    assert budgets.read(path, "1.2.4") is None
    assert [line for line in path.read_text().splitlines() if "sm_90" in line] == ['"pack sm_90": {"registers": 10}']


@pytest.mark.parametrize("gpu", ["sm_80", "sm_90", "sm_100"])
def test_instructions_are_those_of_the_disassembler(gpu):
    compiled = machine_code.compile_variant(budgets.VARIANTS["pack-int32"], gpu)
    listed = re.findall(r"^\s+/\*[0-9a-f]{4,}\*/ +(\S+)", machine_code.disassembly(compiled), re.MULTILINE)
    assert machine_code.resources(compiled)["instructions"] == sum(not name.startswith("NOP") for name in listed) > 100


def test_spills_are_seen():
    compiled = machine_code.compile_variant(budgets.VARIANTS["select-plain-64x8"], "sm_90", maxnreg=24)
    assert machine_code.resources(compiled)["spills"] > 0


AMD = """
	v_mov_b32_e32 v1, 0
	s_endpgm
	.byte	7
    .sgpr_count:     20
    .sgpr_spill_count: 2
    .vgpr_count:     30
    .vgpr_spill_count: 3
"""


def test_amd_assembly():
    compiled = types.SimpleNamespace(asm={"amdgcn": AMD}, metadata=types.SimpleNamespace(shared=64))
    expected = {"vgprs": 30, "sgprs": 20, "spills": 5, "instructions": 2, "shared": 64}
    assert machine_code.resources(compiled) == expected


def test_amd_assembly_without_counts_is_refused():
    compiled = types.SimpleNamespace(asm={"amdgcn": AMD.replace("vgpr_spill", "")}, metadata=None)
    with pytest.raises(ValueError, match="expected four register counts"):
        machine_code.resources(compiled)
