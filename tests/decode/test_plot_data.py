"""What is drawn is what the data says."""

from __future__ import annotations

import json
import math
import re

import numpy as np
import pytest
from made_runs import made_run

from tetris_decode import plot_data
from tetris_decode.plot_data import Measured
from tetris_decode.policies import FixedLength, Oracle, Tetris
from tetris_decode.simulate import simulate
from tetris_decode.traces import load_runs
from tetris_kernels import CostTable

HALF, SURE = math.log(0.5), math.log(0.95)


def row(batch_size: int, policy: str, median: float, temperature: float = 0.0) -> dict:
    relative = {"median": median, "low": median - 0.1, "high": median + 0.2}
    return {"batch_size": batch_size, "temperature": temperature, "policy": policy, "relative": relative, "metrics": {}}


def write(path, document) -> None:
    path.write_text(json.dumps(document) if not isinstance(document, str) else document)


def test_throughputs_are_those_of_the_file(tmp_path):
    rows = [row(1, "plain", 1.0), row(8, "plain", 1.0, 0.7), row(8, "TETRIS 0.5", 1.2), row(8, "late", 1.1)]
    write(tmp_path / "b.json", {"machine": "M", "settings": {}, "rows": [rows[0], row(1, "late", 2.0), *rows[1:]]})
    data = plot_data.read_bench(tmp_path / "b.json")
    assert data.machine == "M" and len(data.rows) == 5
    assert data.rows[3] == Measured(8, 0.0, "TETRIS 0.5", 1.2, pytest.approx(1.1), pytest.approx(1.4))
    assert data.batch_sizes == [1, 8] and data.temperatures == [0.0, 0.7]
    assert data.policies == ["plain", "TETRIS 0.5", "late"], "in the order of the largest batch, which has all"


@pytest.mark.parametrize(
    ("document", "reason"),
    [
        ("{", "Expecting property name"),
        ({"machine": "M"}, "none of 'rows'"),
        ({"machine": "M", "rows": [{"batch_size": 1}]}, "none of 'temperature'"),
        ({"machine": "M", "rows": [row(1, "plain", 1.0) | {"relative": 3}]}, "'int' object is not subscriptable"),
        ({"machine": "M", "rows": [row(1, "plain", 1.0) | {"batch_size": "many"}]}, "invalid literal for int"),
        ([], "list indices must be integers"),
    ],
)
def test_another_file_is_refused(tmp_path, document, reason):
    path = tmp_path / "b.json"
    write(path, document)
    message = f"results: expected the JSON of tetris-decode bench, got {path}: {reason}"
    with pytest.raises(ValueError, match=re.escape(message)):
        plot_data.read_bench(path)


def test_a_file_without_rows_is_refused(tmp_path):
    path = tmp_path / "b.json"
    write(path, {"machine": "M", "rows": []})
    with pytest.raises(ValueError, match=re.escape(f"results: expected at least one row, got none in {path}")):
        plot_data.read_bench(path)


def test_budget_curves_are_those_of_the_simulator():
    run = next(iter(load_runs().values()))
    seen = []
    curves = plot_data.budget_curves(run, 16, lambda: seen.append(1))
    budgets = plot_data.budgets(run.num_drafts)
    assert len(seen) == run.num_drafts + 2 * len(budgets)
    assert [point.label for point in curves.fixed] == [str(k) for k in range(1, run.num_drafts + 1)]
    assert [point.label for point in curves.tetris] == [f"{k:g}" for k in budgets]
    # Seconds have no part in it.
    costs = CostTable({}, (1, 9), (0.1, 0.5), tuple(0.01 * k for k in range(run.num_drafts + 1)))
    for points, policy in (
        (curves.fixed, FixedLength(2)),
        (curves.tetris, Tetris(2, run.num_drafts)),
        (curves.oracle, Oracle(2, run.num_drafts)),
    ):
        replayed = simulate(run, policy, costs, batch_size=16)
        [point] = [point for point in points if point.label == "2"]
        assert point.tokens == pytest.approx(replayed.metrics.tokens_per_verification)
        verifications = sum(step.requests for step in replayed.steps)
        assert point.verified == pytest.approx(sum(step.verified for step in replayed.steps) / verifications)
    for tetris, oracle in zip(curves.tetris, curves.oracle, strict=True):
        assert tetris.tokens <= oracle.tokens + 1e-9
    assert curves.tetris[-1].tokens == pytest.approx(curves.fixed[-1].tokens), "where everything is verified"


def test_budgets_end_with_the_recorded_drafts():
    assert plot_data.budgets(2) == [0.25, 0.5, 0.75, 1, 1.25, 1.5, 1.75, 2]
    assert plot_data.budgets(8)[-3:] == [6, 7, 8]


def test_reliability_counts_survivals():
    # One request of four tokens: two drafts in its first row, one in the next, none in the last.
    run = made_run([[HALF, HALF], [SURE, 0], [SURE, 0]], [[1, 0], [1, 0], [0, 0]], [4])
    assert run.draft_lens.tolist() == [2, 1, 0]
    data = plot_data.reliability(run)
    assert data.estimated.tolist() == pytest.approx([0.25, 0.5, 0.95])
    assert data.observed.tolist() == [0, 1, 1] and data.counts.tolist() == [1, 1, 1]
    assert data.error == pytest.approx((0.25 + 0.5 + 0.05) / 3)


def test_a_draft_behind_a_rejected_one_does_not_survive():
    run = made_run([[SURE, SURE, SURE]] * 3, [[0, 1, 1], [0, 0, 0], [0, 0, 0]], [4])
    data = plot_data.reliability(run)
    assert run.draft_lens.tolist() == [2, 1, 0]
    assert data.observed.tolist() == [0.0] and data.counts.tolist() == [3]


def test_an_estimate_of_one_is_in_the_last_bin():
    data = plot_data.reliability(made_run([[0.0]] * 3, [[1]] * 3, [4]))
    assert data.estimated.tolist() == [1.0] and data.counts.tolist() == [2]


def test_reliability_of_all_recorded_drafts():
    for run in load_runs().values():
        data = plot_data.reliability(run)
        there = np.arange(run.num_drafts) < run.draft_lens[:, None]
        assert data.counts.sum() == there.sum()
        survived = np.logical_and.accumulate(run.accepted, axis=1)[there].sum()
        assert float(data.observed @ data.counts) == pytest.approx(survived)


def test_a_run_without_drafts_is_refused():
    run = made_run(np.zeros((1, 2)), np.zeros((1, 2)), [2])
    with pytest.raises(ValueError, match="run: expected one with drafts, got none in made@T0"):
        plot_data.reliability(run)


def test_allocations_are_steps_under_one_budget():
    log_q = np.full((12, 3), HALF)
    accepted = np.zeros((12, 3))
    # Step 2 is row 1 of the first request and row 7 of the second.
    log_q[1], accepted[1] = [SURE, SURE, SURE], [1, 1, 0]
    log_q[7], accepted[7] = [HALF, SURE, SURE], [0, 1, 1]
    run = made_run(log_q, accepted, [7, 7])
    first, second, third = plot_data.allocations(run, num_requests=2, k=1, extra=2)
    assert [first.step, second.step, third.step] == [1, 2, 3], "later ones have fewer than 3 drafts"
    assert second.prompts == ("made/0", "made/1") and second.model == "none"
    assert second.survival[0].tolist() == pytest.approx([0.95, 0.95**2, 0.95**3])
    assert second.accepted.tolist() == [[True, True, False], [False, False, False]]
    assert second.fixed.tolist() == [1, 1] and second.tetris.tolist() == [2, 0]
    assert (second.num_accepted(second.fixed), second.num_accepted(second.tetris)) == (1, 2)
    assert plot_data.mean_accepted([first, second, third]) == pytest.approx((1 / 3, 2 / 3))


def test_the_typical_step_is_nearest_to_the_mean():
    log_q = np.full((16, 2), HALF)
    accepted = np.zeros((16, 2))
    for row, outcome in enumerate([[1, 1], [1, 0], [0, 0], [1, 0], [1, 1]]):
        accepted[row] = outcome
    steps = plot_data.allocations(made_run(log_q, accepted, [9, 9]), num_requests=1, k=2, extra=0)
    assert [step.num_accepted(step.fixed) for step in steps] == [2, 1, 0, 1, 2, 0]
    assert plot_data.mean_accepted(steps) == (1, 1)
    assert plot_data.typical(steps).step == 2


def test_allocations_leave_out_requests_that_have_not_enough_drafts():
    run = made_run(np.full((10, 3), HALF), np.zeros((10, 3)), [4, 8])
    of_step_2 = plot_data.allocations(run, num_requests=1, k=1, extra=2)[1]
    assert of_step_2.step == 2 and of_step_2.prompts == ("made/1",)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 2, "extra": 2}, "k + extra: expected 1 to 3, the recorded drafts, got 2 + 2"),
        ({"k": 0, "extra": 1}, "k + extra: expected 1 to 3, the recorded drafts, got 0 + 1"),
        (
            {"k": 1, "extra": 1, "num_requests": 3},
            "requests: expected as many as have 2 drafts at once in made@T0, got 3",
        ),
    ],
)
def test_wrong_allocations_are_refused(options, message):
    run = made_run(np.full((12, 3), HALF), np.zeros((12, 3)), [7, 7])
    with pytest.raises(ValueError, match=re.escape(message)):
        plot_data.allocations(run, **{"num_requests": 2} | options)
