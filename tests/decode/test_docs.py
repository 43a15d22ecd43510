"""The code in docs/ runs and is right, and the tables there list what there is."""

from __future__ import annotations

import contextlib
import inspect
import io
import re
from dataclasses import fields

import pytest
import torch
from code_blocks import ROOT, blocks, check
from tiny_laws import LENGTH, LEVEL, PROMPT, REQUESTS, exact_law, models, p_value
from typer.main import get_command

from tetris_decode import adaptive, goodput, policies, slo
from tetris_decode.commands.app import app
from tetris_decode.metrics import Metrics

DECODER = ROOT / "docs" / "decoder.md"
PYTHON = [
    pytest.param(code, id=f"{path.stem} {number}")
    for path in sorted((ROOT / "docs").glob("*.md"))
    for number, code in enumerate(blocks(path, "python"))
]


@pytest.mark.parametrize("code", PYTHON)
def test_python_block_runs(code):
    check(code)


def test_the_decoder_is_short():
    loop = blocks(DECODER, "python")[0]
    assert "tetris_decode" not in loop
    assert len([line for line in loop.splitlines() if line.strip()]) <= 40


@pytest.fixture(scope="module")
def scope():
    """The names of the decoder in the document."""
    names = {}
    with torch.random.fork_rng(), contextlib.redirect_stdout(io.StringIO()):
        exec(blocks(DECODER, "python")[0], names)
    return names


@pytest.mark.parametrize("budget", [0, 1, 2, 5, 11, 12, 20])
@pytest.mark.parametrize("num_drafts", [0, 1, 4])
def test_greedy_output_is_that_of_plain_decoding(scope, num_drafts, budget):
    """With every budget, from none to more than there is to verify."""
    text = scope["decode"](scope["prompts"], 40, num_drafts=num_drafts, budget=budget, temperature=0)
    assert text == scope["plain"]


@pytest.mark.parametrize("new_tokens", [1, 2, 3])
def test_few_tokens(scope, new_tokens):
    texts = scope["decode"](scope["prompts"], new_tokens, num_drafts=4, budget=5, temperature=0)
    assert texts == [text[:new_tokens] for text in scope["plain"]]


@pytest.fixture
def sample(scope, monkeypatch):
    """Many texts of the decoder in the document, with models of four tokens."""
    for name, model in zip(("target", "drafter"), models(), strict=True):
        monkeypatch.setitem(scope, name, model)

    def run(num_drafts: int, per_request: float, temperature: float) -> list[list[int]]:
        with torch.random.fork_rng():
            torch.manual_seed(7)
            options = {"num_drafts": num_drafts, "budget": int(per_request * REQUESTS), "temperature": temperature}
            return scope["decode"]([PROMPT] * REQUESTS, LENGTH, **options)

    return run


@pytest.mark.parametrize(("num_drafts", "per_request", "temperature"), [(2, 0.7, 1.0), (2, 0.7, 0.6), (3, 3, 1.0)])
def test_sampled_output_has_the_law_of_the_target(sample, num_drafts, per_request, temperature):
    assert p_value(sample(num_drafts, per_request, temperature), exact_law(temperature)) > LEVEL


def test_a_bonus_drawn_directly_is_seen(scope, sample, monkeypatch):
    """What the test above would say if it were biased."""
    accept = scope["accept"]
    monkeypatch.setitem(scope, "accept", lambda *args, **options: accept(*args, **options, bonus="direct"))
    assert p_value(sample(2, 0.7, 1.0), exact_law(1.0)) < 1e-12


def rows_of(head: str) -> list[str]:
    """The first cells of the table under a head, without their backticks."""
    table = DECODER.read_text(encoding="utf-8").partition(f"| {head} |")[2].split("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def test_every_quantity_is_listed():
    assert rows_of("quantity") == [field.name for field in fields(Metrics)]


def test_every_policy_is_listed():
    found = [
        name
        for module in (policies, goodput, adaptive, slo)
        for name, cls in vars(module).items()
        if inspect.isclass(cls) and cls.__module__ == module.__name__ and hasattr(cls, "num_drafts")
    ]
    assert sorted(rows_of("policy")) == sorted(name for name in found if name != "Policy")


def test_commands_and_their_options_exist():
    commands = get_command(app).commands
    documents = [ROOT / "README.md", ROOT / "DESIGN.md", *(ROOT / "docs").glob("*.md")]
    text = "\n".join(path.read_text(encoding="utf-8") for path in documents)
    mentioned = re.findall(r"`tetris-decode ([a-z-]+)([^`]*)`", text)
    assert {name for name, _ in mentioned} >= {"demo", "record", "simulate"}
    for name, options in mentioned:
        known = {option for parameter in commands[name].params for option in parameter.opts} | {"--help"}
        assert set(re.findall(r"--[a-z0-9-]+", options)) <= known, name
