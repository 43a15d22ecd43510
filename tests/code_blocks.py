"""The Python code in a document, and what it says that the code prints."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def blocks(document: Path, language: str) -> list[str]:
    """The fenced code of one language, in order."""
    fenced = re.findall(r"^```(\w*)\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    return [code for of, code in fenced if of == language]


def check(code: str) -> None:
    """Run it in a process of its own. A comment `# -> text` beside a print is what it prints."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert re.findall(r"# -> (.*)", code) == done.stdout.splitlines()
