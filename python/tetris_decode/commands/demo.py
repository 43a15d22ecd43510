"""`tetris-decode demo`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from tetris_decode.commands import options
from tetris_decode.commands.console import check_out, console, errors_in_a_sentence, partial_results, progress

PARTIAL = Path("tetris-decode-demo.json")


def demo(
    model: options.ModelDir = None,
    draft: options.DraftDir = None,
    drafter: options.DrafterOption = None,
    skip_layers: options.SkipLayers = None,
    prompts: options.PromptFile = None,
    requests: options.Requests = 16,
    batch_size: options.BatchSize = None,
    max_new_tokens: options.MaxNewTokens = 48,
    drafts_per_request: options.DraftsPerRequest = 1,
    extra: options.Extra = 3,
    temperature: options.Temperature = 0,
    dtype: options.Dtype = options.DtypeName.BFLOAT16,
    device: options.Device = "cpu",
    rounds: Annotated[int, typer.Option(metavar="R", min=1, help="Runs of each policy; the median is shown.")] = 2,
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="Where Ctrl-C leaves the complete runs, as JSON.")
    ] = PARTIAL,
    as_json: options.AsJson = False,
) -> None:
    """Decode prompts live: no speculation, a fixed length, TETRIS.

    Live: with SmolLM2 on a CPU about two minutes. The default model and prompts are those that `make demo` installs.
    """
    shown: Demo | None = None

    def save() -> Path | None:
        if shown is None or not any(shown.runs.values()):
            return None
        out.write_text(json.dumps(shown.document(), indent=2), encoding="utf-8")
        return out

    with partial_results(save), errors_in_a_sentence(), progress() as bar:
        check_out(out)
        task = bar.add_task("loading", total=None)
        # Not at the top: transformers takes seconds to import, and the other commands do without it.
        from tetris_decode import live_report
        from tetris_decode.demo import Demo, Settings
        from tetris_decode.inputs import Options, load_inputs
        from tetris_decode.machine import machine

        inputs = load_inputs(
            Options(
                model=model,
                draft=draft,
                drafter=drafter and drafter.value,
                skip_layers=skip_layers,
                prompts=prompts,
                requests=requests,
                max_new_tokens=max_new_tokens,
                dtype=dtype.value,
                device=device,
            )
        )
        count = len(inputs.prompts)
        settings = Settings(max_new_tokens, drafts_per_request, extra, batch_size or count, temperature, rounds)
        shown = Demo(inputs, settings)
        bar.update(task, total=rounds * len(shown.runs) * max_new_tokens * count, description="warming up")
        shown.run(lambda name, step: bar.update(task, advance=step.emitted, description=f"decoding: {name}"))
        measured = shown.measurements()

    if as_json:
        typer.echo(json.dumps(shown.document(), indent=2))
    else:
        answers = [inputs.chat.decode(output) for output in measured[-1].outputs]
        names = [prompt.name for prompt in inputs.prompts]
        machine_line = machine(inputs.chat.model.device)
        console().print(live_report.tables(measured, names, answers, shown.describe(), machine_line))
