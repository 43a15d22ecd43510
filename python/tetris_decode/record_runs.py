"""Recordings of SmolLM2, a run for each drafter and temperature, kept in one file."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
import transformers
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from transformers.utils import logging

from tetris_decode import prompts, smollm2, traces
from tetris_decode.prompts import Prompt
from tetris_decode.record import Recorder
from tetris_decode.smollm2 import ChatModel
from tetris_decode.traces import Run


class Settings(NamedTuple):
    """What is recorded; the command line's options."""

    drafters: tuple[str, ...]
    temperatures: tuple[float, ...]
    num_requests: int
    max_new_tokens: int
    batch_size: int


def record_runs(settings: Settings, out: Path) -> bool:
    """Record, saving after each run; runs of other names that are in the file stay. Whether it was interrupted.

    Raises:
        FileNotFoundError, ValueError: the model or the prompts are missing; a file `out` of something else.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        logging.disable_progress_bar()
    if not out.parent.is_dir():
        raise ValueError(f"out: expected a file in a folder that exists, got {out}")
    runs = traces.load(out) if out.exists() else {}
    chosen = prompts.evaluation()[: settings.num_requests]
    chat = smollm2.load()
    for name in settings.drafters:
        for temperature in settings.temperatures:
            recorder = _recorder(settings, chat, chosen, name, temperature)
            interrupted = _run_to_end(recorder, settings.max_new_tokens * len(chosen), console)
            try:
                run = recorder.run()
            except ValueError:
                # Stopped before anything was there.
                console.print(f"Stopped: nothing of {recorder.name} was recorded.")
                return True
            runs[run.name] = run
            traces.save(out, runs.values())
            console.print(f"{'Stopped: ' if interrupted else ''}{describe(run)} saved to {out}.")
            if interrupted:
                return True
    return False


def describe(run: Run) -> str:
    """What a run holds, in a few words."""
    return f"{run.name}: {run.num_requests} requests, {len(run.ids):,} positions, {run.draft_lens.sum():,} drafts"


def _recorder(settings: Settings, chat: ChatModel, chosen: list[Prompt], drafter: str, temperature: float) -> Recorder:
    about = {
        "model": smollm2.NAME,
        "drafter": drafter,
        "prompts": "evaluation prompts of tetris_decode.prompts",
        "dtype": str(chat.model.dtype).removeprefix("torch."),
        "versions": f"torch {torch.__version__}, transformers {transformers.__version__}",
    }
    return Recorder(
        chat.model,
        [chat.encode(prompt.text) for prompt in chosen],
        settings.max_new_tokens,
        smollm2.make_drafter(drafter, chat),
        name=f"{drafter}@T{temperature:g}",
        prompt_names=[prompt.name for prompt in chosen],
        about=about,
        batch_size=settings.batch_size,
        temperature=temperature,
        eos_token_id=chat.eos_token_id,
    )


def _run_to_end(recorder: Recorder, total: int, console: Console) -> bool:
    """Whether Ctrl-C stopped it."""
    columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn()
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        task = progress.add_task(f"recording {recorder.name}", total=total)
        try:
            while recorder.is_running:
                progress.update(task, advance=recorder.step().emitted)
        except KeyboardInterrupt:
            return True
    return False
