"""What the environment and an engine's field may say, and what is refused."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tetris_vllm.settings import COUNTERS, SCORES, Budget, Settings, for_engine, from_environment


@pytest.fixture
def costs(tmp_path) -> Path:
    path = tmp_path / "costs.json"
    path.write_text("{}")
    return path


@pytest.mark.parametrize("environment", [{}, {"HOME": "/", "TETRIS": "1"}, {"TETRIS_VLLM_BUDGET": ""}, {COUNTERS: "/"}])
def test_without_a_budget_the_plugin_is_off(environment):
    assert from_environment(environment) is None


@pytest.mark.parametrize("other", ["TETRIS_VLLM_SCORE", "TETRIS_VLLM_MIN_BATCH"])
def test_other_variables_do_not_switch_it_on(other):
    assert from_environment({other: "top" if other.endswith("SCORE") else "3"}) is None


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("all", Budget("all")),
        ("0", Budget("absolute", 0)),
        ("32", Budget("absolute", 32)),
        (" 32 ", Budget("absolute", 32)),
        ("1.5x", Budget("per request", 1.5)),
        ("0x", Budget("per request", 0)),
        ("1e1x", Budget("per request", 10)),
    ],
)
def test_budgets(text, budget):
    assert from_environment({"TETRIS_VLLM_BUDGET": text}) == Settings(budget)


def test_all_variables(costs):
    environment = {
        "TETRIS_VLLM_BUDGET": "adaptive",
        "TETRIS_VLLM_COSTS": str(costs),
        "TETRIS_VLLM_SCORE": "collision",
        "TETRIS_VLLM_MIN_DRAFTS": "1",
        "TETRIS_VLLM_MIN_BATCH": "4",
    }
    assert from_environment(environment) == Settings(Budget("adaptive"), costs, "collision", 1, 4)


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "-1x", "nanx", "infx", "1 x 2", "٣", "many", "ALL"])
def test_other_budgets_are_refused(text):
    expected = "a number of drafts, drafts per request as in '1.5x', 'adaptive' or 'all'"
    with pytest.raises(ValueError, match=re.escape(f"TETRIS_VLLM_BUDGET: expected {expected}, got {text!r}")):
        from_environment({"TETRIS_VLLM_BUDGET": text})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("BUDGETS", "1", "BUDGETS: expected one of TETRIS_VLLM_BUDGET, TETRIS_VLLM_COSTS, .*, got an unknown variable"),
        ("SCORE", "best", f"SCORE: expected one of {', '.join(SCORES)}, got 'best'"),
        ("MIN_DRAFTS", "-1", "MIN_DRAFTS: expected an integer from 0 on, got '-1'"),
        ("MIN_BATCH", "1.0", "MIN_BATCH: expected an integer from 0 on, got '1.0'"),
        ("COSTS", "/nowhere.json", "COSTS: expected a file that exists, got '/nowhere.json'"),
    ],
)
def test_wrong_variables_are_refused(name, value, message):
    with pytest.raises(ValueError, match=f"^TETRIS_VLLM_{message}$"):
        from_environment({"TETRIS_VLLM_BUDGET": "1", f"TETRIS_VLLM_{name}": value})


def test_an_adaptive_budget_needs_costs():
    with pytest.raises(ValueError, match="COSTS: expected the file of a cost table with an adaptive budget, got none"):
        from_environment({"TETRIS_VLLM_BUDGET": "adaptive"})


def test_an_engine_has_the_last_word(costs):
    environment = {"TETRIS_VLLM_BUDGET": "2x", "TETRIS_VLLM_MIN_BATCH": "4"}
    assert for_engine(environment, {}) == from_environment(environment)
    assert for_engine(environment, {"another plugin's": 1}) == from_environment(environment)
    field = {"budget": 8, "score": "history"}
    assert for_engine(environment, {"tetris": field}) == Settings(Budget("absolute", 8), None, "history", 0, 4)
    field = {"budget": "adaptive", "costs": str(costs)}
    assert for_engine({}, {"tetris": field}) == Settings(Budget("adaptive"), costs)
    assert for_engine({}, {}) == Settings(Budget("all"))


@pytest.mark.parametrize("no_mapping", [None, object()])
def test_another_kind_of_additional_config_says_nothing(no_mapping):
    assert for_engine({"TETRIS_VLLM_BUDGET": "3"}, no_mapping) == Settings(Budget("absolute", 3))


def test_wrong_fields_are_refused():
    with pytest.raises(TypeError, match=r"additional_config\['tetris'\]: expected a mapping, got list"):
        for_engine({}, {"tetris": []})
    expected = "expected keys of budget, costs, score, min_drafts, min_batch, got 'buget'"
    with pytest.raises(ValueError, match=rf"additional_config\['tetris'\]: {expected}"):
        for_engine({}, {"tetris": {"buget": 3}})
    with pytest.raises(ValueError, match=r"additional_config\['tetris'\]\['budget'\]: expected .*, got '-1'"):
        for_engine({}, {"tetris": {"budget": -1}})
    with pytest.raises(ValueError, match=r"additional_config\['tetris'\]\['min_drafts'\]: expected .*, got 'True'"):
        for_engine({}, {"tetris": {"min_drafts": True}})
