"""The rows of `make bench-path`: what was launched, what is not known, and nothing of a wrong answer."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the compiler", allow_module_level=True)

import torch

import tetris_kernels
from bench import critical_path, gate, inputs
from bench.critical_path import LAUNCH, OURS, Row, measure
from bench.peers import catalogue
from tetris_kernels import ops

SMALL = inputs.make("smooth", 8, 4, 0.5)
LAUNCHES = {OURS: (1, ()), "all-pairs rank": (3, ("cumsum",)), "one-program sort": (1, ())}


def test_the_ways_are_those_that_are_kernels() -> None:
    assert tuple(LAUNCHES) == critical_path.WAYS


@pytest.mark.parametrize("target", ["sm_80", "sm_90"])
@pytest.mark.parametrize("way", LAUNCHES)
def test_launches(way: str, target: str) -> None:
    """Twice: a driver must not find the kernels that the one before it loaded."""
    rows = [measure(catalogue.by_name(way), SMALL, target) for _ in range(2)]
    for row in rows:
        assert (row.launches, row.torch_operations) == LAUNCHES[way]
        assert row.is_checked and row.is_lower_bound == bool(row.torch_operations) and not row.without_replay
        assert row.extra_launches == LAUNCH * (row.launches + len(row.torch_operations) - 1)
        assert row.total == row.cycles_all_programs + row.extra_launches
        # No launch is longer than a hundred loads one after another, nor shorter than one.
        assert 600 * row.launches < row.cycles_alone < 60_000 * row.launches
        assert row.cycles_alone <= row.cycles_together == row.cycles_all_programs
        assert row.warp_instructions > 0 and row.sectors >= 8 * 4 * 4 // 32
    assert rows[0] == rows[1]


def test_program_0_alone_is_not_checked_and_has_no_counts() -> None:
    """32 programs compare all pairs of 64 x 8; the other launches have two."""
    batch = inputs.make("smooth", 64, 8, 0.5)
    whole, part = (measure(catalogue.by_name("all-pairs rank"), batch, most_programs=most) for most in (32, 31))
    assert whole.is_checked and not part.is_checked
    assert whole.warp_instructions and part.warp_instructions is part.barriers is part.sectors is None
    assert (part.cycles_together, part.total) == (whole.cycles_together, whole.total)
    assert "only program 0 of the 32 of rank_kernel is executed; nothing is checked" in part.notes
    assert [*critical_path._cells(part)][1] == "all-pairs rank *" and [*critical_path._cells(part)][-1][0] == "~"


def test_programs_take_turns_on_the_multiprocessors(monkeypatch: pytest.MonkeyPatch) -> None:
    found = {"cycles_alone": 50, "cycles_together": 60, "issued": 100}
    monkeypatch.setattr(critical_path, "replayed", lambda *_: found)
    batch = inputs.make("smooth", 64, 8, 0.5)
    # Of 2, 32 and 2 programs: one each of the two, and 25 cycles to issue each of the 4 of the busiest.
    monkeypatch.setattr(critical_path, "MULTIPROCESSORS", 8)
    row = measure(catalogue.by_name("all-pairs rank"), batch)
    assert (row.cycles_together, row.cycles_all_programs) == (180, 60 + 100 + 60)


def test_what_has_no_replay_makes_a_lower_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(critical_path, "replayed", lambda *_: {"no_cycles": "unknown"})
    row = measure(catalogue.by_name(OURS), SMALL)
    assert row.without_replay == ("select-plain-8x4",) and row.is_lower_bound
    assert row.notes == ("select-plain-8x4 has no replay: unknown",)
    assert [cell for cell in critical_path._cells(row)][-5:] == [">= 0"] * 3 + ["0", ">= 0"]


def test_a_batch_beyond_the_catalogue_is_not_tried() -> None:
    row = measure(catalogue.by_name("one-program sort"), inputs.make("smooth", 1024, 16, 0.5))
    assert row == Row(1024, 16, "one-program sort", notes=("bench/peers/catalogue.py has it up to 8,192 entries",))
    assert [*critical_path._cells(row)][2:] == ["-"] * 9


def test_what_the_machine_does_not_know_is_said() -> None:
    """bar.warp.sync, by which a program of one warp sorts 128 entries."""
    row = measure(catalogue.by_name("one-program sort"), inputs.make("smooth", 16, 8, 0.5))
    (note,) = row.notes
    assert note.startswith("cannot be executed: the instruction bar.warp.sync") and row.total is None
    assert measure(catalogue.by_name(OURS), SMALL).is_checked  # and the next one runs


def wrong(select):
    def changed(*arguments):
        lens, cu_lens = select(*arguments)
        return lens.flip(0), cu_lens

    return changed


def test_a_wrong_answer_stops_everything(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    right = catalogue.by_name
    last = critical_path.WAYS[-1]
    planted = replace(right(last), load=lambda: wrong(right(last).select))
    with pytest.raises(gate.RedGate, match=f"^RED  {last} on 8x4 smooth 50%"):
        measure(planted, SMALL)
    monkeypatch.setattr(catalogue, "by_name", lambda name: planted if name == last else right(name))
    monkeypatch.setattr("sys.argv", ["critical_path", "--shape", "8x4", "--no-summary"])
    with pytest.raises(SystemExit, match=f"^RED  {last} on 8x4 smooth 50%"):
        critical_path.main()
    assert capsys.readouterr().out == ""


def test_torch_operations_within_our_operator_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    def select(logprobs, *_):
        return logprobs.sum(1, dtype=torch.int32), logprobs.new_empty(9, dtype=torch.int32)

    monkeypatch.setattr(ops, "select", select)
    with critical_path.Operations() as operations:
        tetris_kernels.select(SMALL.logprobs, 3)
    assert operations.names == ["sum"]


def test_shortest() -> None:
    def verdict(ours: int, other: int, operations: tuple[str, ...] = ()) -> str:
        rows = [Row(8, 4, OURS, total=ours), Row(8, 4, "other", torch_operations=operations, total=other)]
        (line,) = critical_path.shortest([*rows, Row(8, 4, "third")])
        return line

    assert verdict(100, 130) == "8x4: ours is the shortest; other takes 1.30 times as many cycles"
    assert verdict(100, 110) == "8x4: ours is not clearly the shortest; other takes 1.10 times as many cycles"
    assert verdict(100, 70) == "8x4: ours is not the shortest; other takes 0.70 times as many cycles"
    assert verdict(100, 70, ("cumsum",)).startswith("8x4: ours is not clearly the shortest; other takes at least 0.70")
    assert [*critical_path.shortest([Row(8, 4, OURS, total=5)])] == ["8x4: nothing to compare"]


def test_over_inputs() -> None:
    rows = [Row(8, 4, OURS, total=1), Row(8, 4, "a", total=7), Row(8, 4, "b", total=6), Row(64, 8, "c", total=5)]
    (found,) = critical_path.over_inputs(((8, 4),), "sm_90", rows)
    assert found["shortest other"] == 6
    assert found["inputs"] == len(inputs.KINDS) * len(inputs.FRACTIONS)
    assert found["smooth 50%"] == measure(catalogue.by_name(OURS), SMALL).total
    assert 600 < found["lowest"] <= found["median"] <= found["worst"]
    assert found["worst / smooth"] == f"{found['worst'] / found['smooth 50%']:.2f}"
    kind, fraction = found["worst on"].rsplit(" ", 1)
    batch = inputs.make(kind, 8, 4, float(fraction.rstrip("%")) / 100)
    assert measure(catalogue.by_name(OURS), batch).total == found["worst"]
