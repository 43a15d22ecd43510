"""`tetris-decode record`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from tetris_decode.commands import options
from tetris_decode.commands.console import check_out, errors_in_a_sentence, partial_results, progress


def record(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to, .npz. Runs of other names in it stay.")],
    temperature: Annotated[
        list[float] | None, typer.Option(metavar="T", min=0, help="Repeatable: a run for each. Default: 0 and 0.7.")
    ] = None,
    model: options.ModelDir = None,
    draft: options.DraftDir = None,
    drafter: options.DrafterOption = None,
    skip_layers: options.SkipLayers = None,
    prompts: options.PromptFile = None,
    requests: options.Requests = 128,
    batch_size: Annotated[int, typer.Option(metavar="B", min=1, help="Requests at a time.")] = 16,
    max_new_tokens: options.MaxNewTokens = 48,
    dtype: options.Dtype = options.DtypeName.BFLOAT16,
    device: options.Device = "cpu",
) -> None:
    """Record drafts and their acceptance, at every position.

    For replay, simulate and plot. Live: with SmolLM2 on a CPU some minutes for each run. Runs are named
    drafter@temperature, and one of the same name is replaced. Ctrl-C leaves what was recorded by then, beside a
    complete run of that name.
    """
    recorder: Recorder | None = None

    def save() -> Path | None:
        run = recorder.run() if recorder else None
        if run is None or not len(run.ids):
            return None
        if recorder and recorder.is_running and run.name in runs:
            # What was complete stays.
            run = replace(run, name=f"{run.name} (partial)")
        runs[run.name] = run
        traces.save(out, runs.values())
        what = f"{run.num_requests} requests, {len(run.ids):,} positions, {run.draft_lens.sum():,} drafts"
        typer.echo(f"{run.name}: {what}, in {out}", err=True)
        return out

    with partial_results(save), errors_in_a_sentence(), progress() as bar:
        task = bar.add_task("loading", total=None)
        # Not at the top: transformers takes seconds to import, and other commands do without it.
        from tetris_decode import traces
        from tetris_decode.inputs import Options, load_inputs
        from tetris_decode.machine import versions
        from tetris_decode.record import Recorder

        check_out(out)
        runs = traces.load(out) if out.exists() else {}
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
        about = {
            "model": inputs.chat.name,
            "drafter": inputs.drafter_name,
            "prompts": prompts.name if prompts else "evaluation prompts of tetris_decode.prompts",
            "dtype": dtype.value,
            "versions": versions(),
        }
        for value in dict.fromkeys([0.0, 0.7] if temperature is None else temperature):
            name = f"{inputs.drafter_name}@T{value:g}"
            bar.update(task, total=max_new_tokens * len(inputs.prompts), completed=0, description=f"recording {name}")
            recorder = Recorder(
                inputs.chat.model,
                inputs.encoded,
                max_new_tokens,
                inputs.drafter,
                name=name,
                prompt_names=[prompt.name for prompt in inputs.prompts],
                about=about,
                batch_size=batch_size,
                temperature=value,
                eos_token_id=inputs.chat.eos_token_ids,
            )
            while recorder.is_running:
                bar.update(task, advance=recorder.step().emitted)
            save()
