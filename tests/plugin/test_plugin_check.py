"""What `vllm-check` says, of a vLLM that is not there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tetris_vllm import check, seams

ON = {"TETRIS_VLLM_BUDGET": "1x"}


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    monkeypatch.setattr(seams, "version", lambda: "1.2.3")
    monkeypatch.setattr(seams, "missing", lambda: [])
    points = [SimpleNamespace(name=check.NAME, value="tetris_vllm.plugin:register")]
    monkeypatch.setattr(check.metadata, "entry_points", lambda group: points if group == check.GROUP else [])


@pytest.mark.parametrize("named", [{}, {"VLLM_PLUGINS": "tetris"}, {"VLLM_PLUGINS": "other,tetris"}])
def test_on(named):
    report = check.report(ON | named)
    assert report.works
    assert report.verdict.startswith("vLLM 1.2.3 is supported; the plugin is on, for engines that speculate: ")


def test_off():
    report = check.report({})
    assert report.works
    assert report.verdict.endswith("the plugin is off and changes nothing, as TETRIS_VLLM_BUDGET is not set")


@pytest.mark.parametrize("named", ["other", ""])
def test_vllm_loads_the_plugins_that_are_named(named):
    report = check.report(ON | {"VLLM_PLUGINS": named})
    assert not report.works
    assert report.verdict == "vLLM will not load the plugin: VLLM_PLUGINS does not name tetris"


def test_not_installed_in_this_environment(monkeypatch):
    monkeypatch.setattr(check.metadata, "entry_points", lambda group: [])
    report = check.report(ON)
    assert not report.works and report.verdict.startswith("vLLM will not find the plugin")


def test_wrong_settings_come_before_places_that_are_missing(monkeypatch):
    """As `register` has it: it reads the settings first."""
    monkeypatch.setattr(seams, "missing", lambda: [seams.SEAMS[0]])
    assert check.report(ON).verdict == "vLLM 1.2.3 is not supported: the plugin logs a line and changes nothing"
    report = check.report({"TETRIS_VLLM_BUDGET": "many"})
    assert not report.works
    assert report.verdict.startswith("vLLM will not start: TETRIS_VLLM_BUDGET: expected ")
