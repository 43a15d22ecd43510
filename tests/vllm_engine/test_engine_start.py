"""How engines start: switched off, not supported, refused, in a process of their own. Each in a fresh Python."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent

SCRIPT = """
import json, os, sys
sys.path.insert(0, {here!r})
if __name__ == "__main__":
    folders, method, options, hide = json.loads(sys.argv[1])
    if hide:
        from tetris_vllm import seams
        seams.SEAMS = (*seams.SEAMS, seams.Seam("vllm.v1.request", "Request", "renamed_since", ("self",)))
    from engines import counted, engine, generate
    from vllm.config.scheduler import SchedulerConfig
    from vllm.v1.spec_decode.llm_base_proposer import SpecDecodeBaseProposer
    from vllm.v1.worker.gpu_model_runner import GPUModelRunner
    from vllm.v1.worker.worker_base import WorkerWrapperBase
    prompts = [[1, 2, 3, 1, 2], [7] * 9, [5, 6, 5, 6]]
    with engine(folders, method, **options) as llm:
        core = llm.llm_engine.engine_core
        scheduler = core.engine_core.scheduler if hasattr(core, "engine_core") else None
        ours = [
            name
            for cls in (SchedulerConfig, SpecDecodeBaseProposer, GPUModelRunner, WorkerWrapperBase)
            for name, value in vars(cls).items()
            if "tetris" in name or "tetris" in getattr(getattr(value, "__code__", None), "co_filename", "")
        ]
        print("RESULT", json.dumps(dict(
            texts=generate(llm, prompts, 20), scheduler=type(scheduler).__name__, ours=ours, counts=counted(),
        )))
"""


def start(folders, method="draft_model", *, settings=None, hide=False, environment=None, **options):
    """(what it did, or None where it did not start; what was logged)"""
    variables = {name: value for name, value in os.environ.items() if not name.startswith("TETRIS_")}
    arguments = json.dumps([folders, method, {"settings": settings, **options}, hide])
    path = Path(folders["target"]).parent / "start.py"
    path.write_text(SCRIPT.format(here=str(HERE)))
    done = subprocess.run(
        [sys.executable, str(path), arguments],
        env=variables | (environment or {}),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    found = [line for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    return json.loads(found[0].removeprefix("RESULT ")) if found else None, done.stdout + done.stderr


@pytest.fixture(scope="module")
def off(folders):
    return start(folders)


def test_off_nothing_of_vllm_is_touched(off):
    result, logged = off
    assert (result["scheduler"], result["ours"]) == ("Scheduler", [])
    assert not any(result["counts"].values())
    assert "tetris_vllm:" not in logged


def test_on(folders, off):
    result, logged = start(folders, environment={"TETRIS_VLLM_BUDGET": "1x"})
    assert result["scheduler"] == "TetrisScheduler"
    wrapped = ["_greedy_sample", "_sample_from_logits", "take_draft_token_ids", "get_scheduler_cls", "init_device"]
    assert sorted(name for name in result["ours"] if name != "_tetris_patched") == sorted(wrapped)
    assert result["texts"] == off[0]["texts"]
    assert 0 < result["counts"]["verified"] <= result["counts"]["budget"] < result["counts"]["proposed"]
    assert "draft_model drafts by top" in logged


def test_in_a_process_of_its_own(folders, off):
    """The engine's counters arrive here all the same."""
    variables = {"TETRIS_VLLM_BUDGET": "1x", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    result, logged = start(folders, environment=variables)
    assert result["scheduler"] == "NoneType"
    assert result["texts"] == off[0]["texts"]
    assert 0 < result["counts"]["verified"] <= result["counts"]["budget"] < result["counts"]["proposed"]
    assert "draft_model drafts by top" in logged


def test_without_speculation_nothing_differs(folders, off):
    result, logged = start(folders, None, environment={"TETRIS_VLLM_BUDGET": "1x"})
    assert result["texts"] == off[0]["texts"]
    assert not any(result["counts"].values())
    assert "no speculative decoding here" in logged


def test_a_vllm_that_has_changed_is_left_alone(folders, off):
    result, logged = start(folders, hide=True, environment={"TETRIS_VLLM_BUDGET": "1x"})
    assert (result["scheduler"], result["ours"]) == ("Scheduler", [])
    assert result["texts"] == off[0]["texts"]
    line = "is not supported, so nothing is changed. It does not have vllm.v1.request.Request.renamed_since(self)"
    assert logged.count(line) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"settings": {"score": "token"}, "speculative": {"draft_sample_method": "probabilistic"}},
            "ValueError: score: expected 'top', 'collision' or 'history' with drafts that are drawn",
        ),
        ({"method": "ngram", "settings": {"score": "top"}}, "expected 'history' or 'auto' where drafts have no logits"),
        ({"settings": {"bugdet": 3}}, "ValueError: additional_config['tetris']: expected keys of budget, costs"),
        ({"scheduler_cls": "vllm.v1.core.sched.scheduler.Scheduler"}, "scheduler_cls: expected none"),
    ],
    ids=["biased", "no logits", "unknown key", "scheduler"],
)
def test_what_is_refused_at_the_start(folders, options, message):
    result, logged = start(folders, environment={"TETRIS_VLLM_BUDGET": "1x"}, **options)
    assert result is None
    assert message in logged
    # Before models are loaded.
    assert "Starting to load model" not in logged
