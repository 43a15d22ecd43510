"""The README's code runs, and what it quotes is what the commands print."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys
from statistics import median

import pytest
from code_blocks import ROOT, blocks, check

README = (ROOT / "README.md").read_text()
PYTHON = blocks(ROOT / "README.md", "python")


@pytest.mark.parametrize("code", PYTHON, ids=range(len(PYTHON)))
def test_python_block_runs(code):
    check(code)


def test_example_is_short():
    assert len(PYTHON) >= 1
    assert len([line for line in PYTHON[0].splitlines() if line.strip()]) <= 12


def test_replay_output_is_what_the_replay_prints():
    quoted = next(code for code in blocks(ROOT / "README.md", "text") if "Which drafts of a batch" in code)
    done = subprocess.run([sys.executable, "-m", "tetris_decode", "replay"], capture_output=True, text=True, check=True)
    printed = [line.rstrip() for line in done.stdout.splitlines()]
    quoted_lines = [line.rstrip() for line in quoted.splitlines() if line.strip() != "..."]
    assert [line for line in quoted_lines if line not in printed] == []


def test_times_on_a_gpu_are_those_of_the_results():
    """The table's medians, from the file that the text before it names."""
    before, _, table = README.partition("| requests x drafts |")
    name = re.findall(r"`(bench/results/\S+\.csv)`", before)[-1]
    with (ROOT / name).open() as file:
        rows = list(csv.DictReader(file))
    head, _, *lines = table.split("\n\n")[0].splitlines()
    sizes = [size.strip() for size in head.strip("| ").split("|")]
    assert len(lines) == len({row["way"] for row in rows if row["warm us"]})
    for line in lines:
        way, *quoted = (cell.strip() for cell in line.strip("|").split("|"))
        way = way.rpartition(" (")[0] or way
        of_way = [row for row in rows if row["way"] == way]
        for size, microseconds in zip(sizes, quoted, strict=True):
            times = [float(r["warm us"]) for r in of_way if f"{r['requests']} x {r['drafts']}" == size]
            assert len(times) == (0 if microseconds == "-" else 15), (way, size)
            assert not times or f"{median(times):.1f}" == microseconds, (way, size)


def test_throughput_is_that_of_the_results():
    """The medians of the table."""
    table = README.partition("| requests at a time |")[2]
    document = json.loads((ROOT / "bench/results/decode.json").read_text())
    measured = {(r["policy"], r["batch_size"], r["temperature"]): r for r in document["rows"]}
    head, _, *lines = table.split("\n\n")[0].splitlines()
    cases = [
        (int(size), 0.0 if how == "greedy" else float(how.removeprefix("T = ")))
        for size, how in (cell.strip().split(", ") for cell in head.strip("| ").split("|"))
    ]
    policies = set()
    for line in lines:
        policy, *quoted = (cell.strip() for cell in line.strip("|").split("|"))
        policies.add(policy)
        for case, shown in zip(cases, quoted, strict=True):
            row = measured.get((policy, *case))
            assert shown == (f"{row['relative']['median']:.2f}" if row else "-"), (policy, case)
    assert policies | {"no speculation"} == {policy for policy, *_ in measured}
    assert len(cases) * len(policies) >= len(measured) - len(cases)


def test_pictures_and_files_that_are_linked_exist():
    linked = re.findall(r"\]\((?!https?:)([^)#]+)\)", README)
    assert len(linked) >= 6
    assert [path for path in linked if not (ROOT / path).is_file()] == []


def test_commands_exist():
    makefile = (ROOT / "Makefile").read_text()
    for target in set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE)):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
