"""`tetris-decode bench`."""

from __future__ import annotations

import json
import os
import random
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from tetris_decode.commands import options
from tetris_decode.commands.console import check_out, errors_in_a_sentence, partial_results, progress

WIDTH = 140
PARTIAL = Path("tetris-decode-bench.json")


def bench(
    model: options.ModelDir = None,
    draft: options.DraftDir = None,
    drafter: options.DrafterOption = None,
    skip_layers: options.SkipLayers = None,
    prompts: options.PromptFile = None,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(metavar="B", min=1, help="Requests at a time; repeatable. Default: 1, 4, 8, 16, 32."),
    ] = None,
    temperature: Annotated[
        list[float] | None, typer.Option(metavar="T", min=0, help="Repeatable. Default: 0 and 0.7.")
    ] = None,
    max_new_tokens: Annotated[int, typer.Option(metavar="T", min=2, help="Tokens generated for each, at most.")] = 96,
    num_drafts: Annotated[
        int, typer.Option(metavar="K", min=6, max=128, help="Drafts made for TETRIS to choose from.")
    ] = 8,
    longest_prompt: Annotated[int, typer.Option(metavar="T", min=1, help="Longer prompts are left out.")] = 256,
    blocks: Annotated[int, typer.Option(metavar="N", min=2, help="Blocks of time of each policy, paired.")] = 12,
    block_seconds: Annotated[
        float, typer.Option(metavar="S", min=0.01, help="Of each policy's own time in each block.")
    ] = 1.0,
    dtype: options.Dtype = options.DtypeName.BFLOAT16,
    device: options.Device = "cpu",
    out: Annotated[Path, typer.Option(metavar="FILE", help="Results as JSON, written after each case.")] = PARTIAL,
    as_json: options.AsJson = False,
) -> None:
    """Measure policies live, side by side in one process.

    No speculation, fixed lengths, DSD, a confidence threshold, TETRIS, a budget that adapts; batches that stay full.
    With SmolLM2 on a CPU about five minutes for each batch size and temperature. Ctrl-C leaves the complete ones.
    """
    cases: list[Case] = []
    about: dict[str, Any] = {}

    def save() -> Path | None:
        if cases:
            out.write_text(json.dumps(bench_report.document(cases, settings, about), indent=2) + "\n", encoding="utf-8")
        return out if cases else None

    with partial_results(save), errors_in_a_sentence(), progress() as bar:
        task = bar.add_task("loading", total=None)
        # Not at the top: transformers takes seconds to import, and other commands do without it.
        from tetris_decode import bench_report, bench_suite, traces
        from tetris_decode.bench_suite import Case, Settings
        from tetris_decode.inputs import Options, load_inputs
        from tetris_decode.machine import machine
        from tetris_decode.simulate import Replay

        settings = Settings(
            batch_sizes=tuple(dict.fromkeys(batch_size or Settings.batch_sizes)),
            temperatures=tuple(dict.fromkeys(Settings.temperatures if temperature is None else temperature)),
            max_new_tokens=max_new_tokens,
            num_drafts=num_drafts,
            longest_prompt=longest_prompt,
            blocks=blocks,
            block_seconds=block_seconds,
        )
        check_out(out)
        inputs = load_inputs(
            Options(
                model=model,
                draft=draft,
                drafter=drafter and drafter.value,
                skip_layers=skip_layers,
                prompts=prompts,
                requests=10**6,
                max_new_tokens=max_new_tokens,
                dtype=dtype.value,
                device=device,
            )
        )
        named = zip(inputs.prompts, inputs.encoded, strict=True)
        chosen = [tokens for prompt, tokens in named if not prompt.name.startswith(bench_suite.LEFT_OUT)]
        chosen = [tokens for tokens in chosen if len(tokens) <= longest_prompt]
        # Kinds of prompts come in turn, until one has no more.
        random.Random(0).shuffle(chosen)
        if not chosen:
            raise ValueError(f"prompts: expected some of at most {longest_prompt} tokens, got none")
        about |= {
            "machine": machine(inputs.chat.model.device),
            "model": inputs.chat.name,
            "dtype": dtype.value,
            "drafter": inputs.drafter_name,
            "prompts": f"{len(chosen)} of {prompts.name if prompts else 'MT-bench and HumanEval'}",
            "GOMP_SPINCOUNT": os.environ.get("GOMP_SPINCOUNT"),
        }
        # What was recorded says something of this model, these drafts and these prompts only.
        as_recorded = not (model or draft or skip_layers or prompts) and dtype is options.DtypeName.BFLOAT16
        runs = traces.load_runs() if as_recorded else {}

        def recorded(temperature: float) -> Replay | None:
            run = runs.get(f"{inputs.drafter_name}@T{temperature:g}")
            return Replay(run) if run else None

        bar.update(task, total=len(settings.batch_sizes) * len(settings.temperatures) * (blocks + 2))
        for case in bench_suite.run(
            inputs.chat.model,
            chosen,
            inputs.chat.eos_token_ids,
            inputs.drafter,
            settings,
            recorded=recorded,
            on_block=lambda title: bar.update(task, advance=1, description=title),
        ):
            cases.append(case)
            save()

    if as_json:
        typer.echo(json.dumps(bench_report.document(cases, settings, about), indent=2))
    else:
        title = (
            f"{about['model']} in {about['dtype']}, prompts over and over ({about['prompts']}), {max_new_tokens} "
            f"tokens each at most, {blocks} blocks of {block_seconds:g} s of each policy. Drafter: {about['drafter']}, "
            f"{num_drafts} drafts. {about['machine']}"
        )
        made = Console(highlight=False)
        if not made.is_terminal:
            made.width = WIDTH
        made.print(bench_report.tables(cases, title))
