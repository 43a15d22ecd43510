"""The live demo: SmolLM2 decodes real prompts without speculation, with a fixed draft length, and with TETRIS."""

from __future__ import annotations

import contextlib
import json
import math
import platform
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from transformers.utils import logging

from tetris_decode import live_report, prompts, smollm2
from tetris_decode.live import Measurement, measure
from tetris_decode.metrics import Step
from tetris_decode.policies import NO_SPECULATION, FixedLength, Policy, Tetris
from tetris_decode.smollm2 import ChatModel


def make_policies(drafts_per_request: float, length: int) -> dict[str, Policy]:
    """Plain decoding first; a fixed length only where there is one that spends the budget."""
    policies: dict[str, Policy] = {"no speculation": NO_SPECULATION}
    if drafts_per_request % 1 == 0:
        policies[f"fixed k = {drafts_per_request:g}"] = FixedLength(int(drafts_per_request))
    policies["TETRIS"] = Tetris(drafts_per_request, length)
    return policies


class Settings(NamedTuple):
    """What the demo decodes, and how; the command line's options."""

    num_requests: int
    max_new_tokens: int
    drafts_per_request: float
    extra: int
    drafter: str
    rounds: int

    @property
    def length(self) -> int:
        """Drafts made for each request, for TETRIS to choose from."""
        return math.ceil(self.drafts_per_request) + self.extra

    def describe(self) -> str:
        budget = f"{self.drafts_per_request:g} x running requests"
        return (
            f"{smollm2.NAME}, {self.num_requests} prompts as one batch, {self.max_new_tokens} tokens each, greedy. "
            f"Drafter: {self.drafter}. Budget of a step: {budget}, for the fixed length and for TETRIS, which may "
            f"choose among the first {self.length} drafts of each."
        )


def run(settings: Settings, console: Console, *, as_json: bool) -> None:
    """Load, decode, print. Progress goes to stderr, if that is a terminal."""
    progress = Console(stderr=True)
    if not progress.is_terminal:
        logging.disable_progress_bar()
    chosen = prompts.evaluation()[: settings.num_requests]
    settings = settings._replace(num_requests=len(chosen))
    chat = smollm2.load()
    measurements = _measure(settings, chat, [prompt.text for prompt in chosen], progress)
    if as_json:
        settings_of_run = settings._asdict() | {"prompts": [prompt.name for prompt in chosen]}
        document = {"machine": machine(), "settings": settings_of_run, "policies": [asdict(m) for m in measurements]}
        console.print_json(json.dumps(document))
    else:
        answers = [[chat.decode(output) for output in m.outputs] for m in measurements]
        console.print(live_report.tables(measurements, chosen, answers, settings.describe(), machine()))


def _measure(settings: Settings, chat: ChatModel, texts: Sequence[str], console: Console) -> list[Measurement]:
    policies = make_policies(settings.drafts_per_request, settings.length)
    encoded = [chat.encode(text) for text in texts]
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(
            "warming up", total=settings.rounds * len(policies) * settings.max_new_tokens * len(texts)
        )

        def on_step(name: str, step: Step) -> None:
            progress.update(task, advance=step.emitted, description=f"decoding: {name}")

        drafter = smollm2.make_drafter(settings.drafter, chat)
        eos = chat.eos_token_id
        # The first forwards cost more: memory, and kernels that are made on the spot.
        measure(chat.model, [prompt[-8:] for prompt in encoded], 4, policies, drafter, eos_token_id=eos)
        return measure(
            chat.model,
            encoded,
            settings.max_new_tokens,
            policies,
            drafter,
            eos_token_id=eos,
            rounds=settings.rounds,
            on_step=on_step,
        )


def machine() -> str:
    """What the numbers were measured on."""
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    versions = f"torch {torch.__version__}, transformers {transformers.__version__}"
    return f"{model}, {torch.get_num_threads()} threads, {versions}, bfloat16"
