"""Changing load: what the stages hold, and the command."""

from __future__ import annotations

import json

import pytest
from code_blocks import ROOT, blocks
from made_runs import head
from test_cli import invoke

from tetris_decode import load, traces
from tetris_decode.load import ADAPTIVE, PLAIN, make_policies, under_load
from tetris_decode.policies import NO_SPECULATION
from tetris_decode.roofline import SYSTEMS
from tetris_decode.simulate import Replay, make_queue, simulate
from tetris_kernels import CostTable

NAME = "layer-skip@T0"


@pytest.fixture(scope="module")
def replay() -> Replay:
    return Replay(head(traces.load_runs()[NAME], 16))


def test_stages(replay):
    costs, called = SYSTEMS["llama-70b"].costs(64, 3), []
    stages = under_load(replay, costs, length=3, loads=(2, 300, 2), on_simulation=lambda: called.append(1))
    assert [stage.batch_size for stage in stages] == [2, 300, 2]
    assert len(called) == 3 * len(make_policies(costs, 3))
    for stage in stages:
        assert set(stage.throughputs) == set(stage.budgets) == set(make_policies(costs, 3))
        assert stage.best != ADAPTIVE
        assert stage.throughputs[ADAPTIVE] > 0.9 * stage.throughputs[stage.best]
        assert stage.budgets["fixed k = 2"] == pytest.approx(2, rel=0.1)
    # What is worth verifying falls with the load, and comes back.
    assert stages[0].best != PLAIN and stages[1].best == PLAIN
    assert stages[1].budgets[ADAPTIVE] < 0.2 < 1 < stages[0].budgets[ADAPTIVE] < 1.3 * stages[2].budgets[ADAPTIVE]


def test_a_stage_is_what_simulate_says(replay):
    costs = CostTable({}, (1, 50), (1.0, 2.0), (0.0, 0.1))
    [stage] = under_load(replay, costs, length=1, loads=(4,), seed=3)
    queue = make_queue(16, load.FEWEST_REQUESTS, 3)
    steps = [s for s in simulate(replay, NO_SPECULATION, costs, batch_size=4, queue=queue).steps if s.requests == 4]
    assert stage.throughputs[PLAIN] == pytest.approx(4 / costs.verification(4), rel=1e-12)
    assert sum(s.emitted for s in steps) == 4 * len(steps)


def test_the_document_quotes_the_command():
    code, output = invoke("load")
    assert code == 0
    [quoted] = blocks(ROOT / "docs" / "budget.md", "text")
    assert [line.rstrip() for line in output.splitlines()] == quoted.splitlines()


SMALL = ["load", "--run", NAME, "--batch-size", "1", "--batch-size", "3", "--num-drafts", "2"]


def test_the_command(tmp_path):
    trace = tmp_path / "t.npz"
    traces.save(trace, [head(traces.load_runs()[NAME], 8)])
    code, output = invoke(*SMALL, "--trace", str(trace))
    assert code == 0, output
    assert max(map(len, output.splitlines())) <= 100
    for text in ("requests", "adaptive", "over best fixed", "TETRIS 0.5", "fixed k = 2", "a model", "H100"):
        assert text in output, text
    code, output = invoke(*SMALL, "--trace", str(trace), "--json")
    [document] = json.loads(output)
    assert document["run"] == NAME and [stage["batch_size"] for stage in document["stages"]] == [1, 3]
    assert document["stages"][0]["throughputs"]["adaptive"] > 0


def test_measured_costs(tmp_path):
    trace, costs = tmp_path / "t.npz", tmp_path / "costs.json"
    traces.save(trace, [head(traces.load_runs()[NAME], 8)])
    CostTable({"device": "made"}, (1, 9), (1.0, 2.0), (0.0, 0.1, 0.1)).save(costs)
    code, output = invoke(*SMALL, "--trace", str(trace), "--costs", str(costs))
    assert code == 0 and "measured, " in output and "H100" not in output


def test_wrong_input(tmp_path):
    costs = tmp_path / "costs.json"
    for table, text in (
        (CostTable({}, (1, 9), (1.0, 1.0), (0.0, 0.1, 0.1)), "cost table: expected seconds that rise somewhere"),
        (CostTable({}, (1, 9), (1.0, 2.0), (0.0, 0.1)), "length: expected 0 to 1 drafts, got 2"),
    ):
        table.save(costs)
        code, output = invoke(*SMALL, "--costs", str(costs))
        assert code == 2 and text in " ".join(output.split())
