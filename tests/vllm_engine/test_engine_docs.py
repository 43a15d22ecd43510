"""The example of docs/vllm.md runs."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

DOCUMENT = (Path(__file__).parents[2] / "docs" / "vllm.md").read_text(encoding="utf-8")


def test_the_example(folders):
    (code,) = re.findall(r"^```py\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert len([line for line in code.splitlines() if line]) <= 5
    code = code.replace("DRAFT", folders["draft_model"]).replace("TARGET", folders["target"])
    # Compiling takes longer than the rest.
    code = code.replace("async_scheduling=False", "async_scheduling=False, enforce_eager=True, max_model_len=128")
    variables = {name: value for name, value in os.environ.items() if not name.startswith("TETRIS_")}
    done = subprocess.run([sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "draft_model drafts by top" in done.stdout + done.stderr
    assert "RequestOutput(" in done.stdout
