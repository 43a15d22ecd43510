"""Prompts from a file: what a line may be, and how others are refused."""

from __future__ import annotations

import re

import pytest

from tetris_decode.prompt_file import FORMS, read_prompts
from tetris_decode.prompts import Prompt


def test_a_line_is_a_prompt(tmp_path):
    path = tmp_path / "mine.jsonl"
    lines = [
        '{"prompt": "one"}',
        '  {"text": "two\\n", "id": 7}',
        "",
        '{"messages": [{"role": "system", "content": "Rhyme."}, {"role": "user", "content": "vier é", "x": 1}]}',
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert read_prompts(path) == [
        Prompt("mine.jsonl:1", "one"),
        Prompt("mine.jsonl:2", "two\n"),
        Prompt("mine.jsonl:4", "vier é", (("system", "Rhyme."), ("user", "vier é"))),
    ]


@pytest.mark.parametrize(
    "line",
    [
        *["prompt", "[1]", '"a text"', "{}", '{"prompt": 3}', '{"prompt": " "}', '{"question": "why"}'],
        *['{"messages": []}', '{"messages": ["hi"]}', '{"messages": [{"role": "user"}]}'],
        *['{"messages": [{"role": "user", "content": ""}]}', '{"messages": [{"role": 1, "content": "x"}]}'],
    ],
)
def test_another_line_is_refused_by_its_number(tmp_path, line):
    path = tmp_path / "x.jsonl"
    path.write_text(f'{{"text": "fine"}}\n{line}\n')
    with pytest.raises(ValueError, match=re.escape(f"{path}, line 2: expected {FORMS}, got {line}") + "$"):
        read_prompts(path)


def test_a_long_line_is_quoted_in_part(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("x" * 1000)
    with pytest.raises(ValueError, match=r"line 1: .*, got x{60}\.\.\.$"):
        read_prompts(path)


def test_a_file_without_a_prompt_is_refused(tmp_path):
    path = tmp_path / "x.jsonl"
    path.write_text("\n  \n")
    with pytest.raises(ValueError, match=re.escape(f"prompts: expected at least one line, got none in {path}")):
        read_prompts(path)


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00"])
def test_a_file_that_cannot_be_read_is_refused(tmp_path, content):
    path = tmp_path / "x.jsonl"
    if content:
        path.write_bytes(content)
    text = re.escape(f"prompts: expected a file of JSON lines in UTF-8, got {path}: ")
    with pytest.raises(ValueError, match=text):
        read_prompts(path)
