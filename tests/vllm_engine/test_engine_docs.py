"""The example of docs/vllm.md runs, and its tables list what there is."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tetris_vllm import counters, settings

DOCUMENT = (Path(__file__).parents[2] / "docs" / "vllm.md").read_text(encoding="utf-8")


def test_the_example(folders):
    (code,) = re.findall(r"^```py\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert len(code.splitlines()) <= 6
    code = code.replace("DRAFT", folders["draft_model"]).replace("TARGET", folders["target"])
    # Compiling takes longer than the rest.
    code = code.replace("async_scheduling=False", "async_scheduling=False, enforce_eager=True, max_model_len=128")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("TETRIS_")}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "draft_model drafts by top" in done.stdout + done.stderr
    assert "RequestOutput(" in done.stdout


def test_every_variable_is_listed():
    rows = re.findall(r"^\| `(TETRIS_VLLM_\w+)` \| `(\w+)` \|", DOCUMENT, re.MULTILINE)
    assert rows == [(settings.PREFIX + key.upper(), key) for key in settings._PARSERS]


def test_every_score_is_listed():
    listed = re.findall(r"^\| `(\w+)` \|", DOCUMENT.partition("| score |")[2].split("\n\n")[0], re.MULTILINE)
    assert {*listed, "auto"} == set(settings.SCORES)


def test_every_counter_is_listed():
    listed = re.findall(r"^\| `tetris:(\w+)_total` \|", DOCUMENT, re.MULTILINE)
    assert listed == [name for name, _ in counters.NAMES.values()]
