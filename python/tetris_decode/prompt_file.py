"""Prompts from a file of JSON lines."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tetris_decode.prompts import Conversation, Prompt

FORMS = '{"prompt": text}, {"text": text} or {"messages": [{"role": text, "content": text}, ...]}'


def read_prompts(path: Path) -> list[Prompt]:
    """A prompt for each line that is not blank; it is named by its file and line. Other keys are ignored.

    `{"prompt": text}`, `{"text": text}`: what the user says. `{"messages": [...]}`: a conversation.

    Raises:
        ValueError: a file that cannot be read or has no prompt, a line of another form.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"prompts: expected a file of JSON lines in UTF-8, got {path}: {error}") from error
    found = [_prompt(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]
    if not found:
        raise ValueError(f"prompts: expected at least one line, got none in {path}")
    return found


def _prompt(path: Path, number: int, line: str) -> Prompt:
    name = f"{path.name}:{number}"
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        entry = None
    match entry:
        case {"prompt": str(text)} | {"text": str(text)} if text.strip():
            return Prompt(name, text)
        case {"messages": [*messages]} if conversation := _conversation(messages):
            return Prompt(name, conversation[-1][1], conversation)
    shown = line.strip() if len(line) <= 60 else f"{line.strip()[:60]}..."
    raise ValueError(f"{path}, line {number}: expected {FORMS}, got {shown}")


def _conversation(messages: list[Any]) -> Conversation:
    """Role and content of each; none if one has another form."""
    said = []
    for message in messages:
        match message:
            case {"role": str(role), "content": str(content)} if role and content.strip():
                said.append((role, content))
            case _:
                return ()
    return tuple(said)
