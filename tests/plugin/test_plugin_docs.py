"""The tables of docs/vllm.md list what there is."""

from __future__ import annotations

import re
from pathlib import Path

from tetris_vllm import counters, settings

DOCUMENT = (Path(__file__).parents[2] / "docs" / "vllm.md").read_text(encoding="utf-8")


def test_every_variable_is_listed():
    rows = re.findall(r"^\| `(TETRIS_VLLM_\w+)` \| `(\w+)` \|", DOCUMENT, re.MULTILINE)
    assert rows == [(settings.PREFIX + key.upper(), key) for key in settings._PARSERS]


def test_every_score_is_listed():
    listed = re.findall(r"^\| `(\w+)` \|", DOCUMENT.partition("| score |")[2].split("\n\n")[0], re.MULTILINE)
    assert {*listed, "auto"} == set(settings.SCORES)


def test_every_counter_is_listed():
    listed = re.findall(r"^\| `tetris:(\w+)_total` \|", DOCUMENT, re.MULTILINE)
    assert listed == [name for name, _ in counters.NAMES.values()]
