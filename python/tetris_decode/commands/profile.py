"""`tetris-decode profile`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from tetris_decode.commands import options
from tetris_decode.commands.console import check_out, console, errors_in_a_sentence, progress


def profile(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where the cost table goes, as JSON.")],
    plot: Annotated[Path | None, typer.Option(metavar="FILE", help="Where a picture of it goes, as PNG.")] = None,
    model: options.ModelDir = None,
    draft: options.DraftDir = None,
    drafter: options.DrafterOption = None,
    skip_layers: options.SkipLayers = None,
    prompts: options.PromptFile = None,
    batch_size: Annotated[int, typer.Option(metavar="B", min=1, help="Requests that run.")] = 16,
    tokens: Annotated[
        list[int] | None,
        typer.Option(
            metavar="T",
            min=1,
            help="Tokens in a batch that is measured, B of them the requests' last; repeatable, twice at least. "
            "Default: up to four drafts for each request.",
        ),
    ] = None,
    staircase: Annotated[
        bool, typer.Option("--staircase", help="The --tokens are buckets: what is between two costs as the next.")
    ] = False,
    num_drafts: Annotated[int, typer.Option(metavar="K", min=1, max=128, help="Drafts made for each request.")] = 8,
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Of each size; the median counts.")] = 20,
    temperature: options.Temperature = 0,
    dtype: options.Dtype = options.DtypeName.BFLOAT16,
    device: options.Device = "cpu",
    as_json: options.AsJson = False,
) -> None:
    """Measure what steps cost here: the table by which a budget is chosen.

    Live: verifications of several sizes in turn, and drafting of each length; with SmolLM2 on a CPU about a minute.
    For `simulate --costs`, and for programs of your own: `tetris_kernels.CostTable.load(FILE)`.
    """
    with errors_in_a_sentence(), progress() as bar:
        task = bar.add_task("loading", total=None)
        # Not at the top: transformers takes seconds to import, and other commands do without it.
        from tetris_decode import profile_report, profiling
        from tetris_decode.inputs import Options, load_inputs

        for file in filter(None, (out, plot)):
            check_out(file)
        if tokens and len(set(tokens)) < 2:
            raise ValueError(f"tokens: expected two numbers or more, got {tokens}")
        if staircase and not tokens:
            raise ValueError("staircase: expected --tokens, the buckets, got none")
        inputs = load_inputs(
            Options(
                model=model,
                draft=draft,
                drafter=drafter and drafter.value,
                skip_layers=skip_layers,
                prompts=prompts,
                requests=batch_size,
                # Nobody ends before the last step, which may emit all drafts.
                max_new_tokens=(steps + 1) * (num_drafts + 1) + 1,
                dtype=dtype.value,
                device=device,
            )
        )
        # Fewer prompts than requests come again.
        batch = [inputs.encoded[i % len(inputs.encoded)] for i in range(batch_size)]
        sizes = tokens or profiling.default_tokens(batch_size, num_drafts)
        bar.update(task, total=(steps + 1) * len(set(sizes)), description="measuring")
        table = profiling.measure_costs(
            inputs.chat.model,
            batch,
            inputs.drafter,
            num_drafts=num_drafts,
            steps=steps,
            temperature=temperature,
            tokens=sizes,
            staircase=staircase,
            key=profiling.key(inputs, batch_size, temperature),
            on_step=lambda: bar.advance(task),
        )
        table.save(out)
        if plot:
            from tetris_decode import plots

            plots.save(lambda: plots.costs(table), plot)

    if as_json:
        typer.echo(json.dumps(asdict(table), indent=2))
    else:
        console().print(profile_report.tables(table, out))
