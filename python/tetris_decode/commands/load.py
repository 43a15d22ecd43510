"""`tetris-decode load`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group

from tetris_decode import load_report
from tetris_decode.commands import options, recorded
from tetris_decode.commands.console import console, errors_in_a_sentence, progress
from tetris_decode.commands.recorded import recorded_runs
from tetris_decode.commands.simulate import RUNS, SystemName
from tetris_decode.load import LOADS, make_policies, under_load
from tetris_decode.roofline import SYSTEMS
from tetris_decode.simulate import Replay
from tetris_kernels import CostTable

CACHES = 64  # requests whose caches a modelled verification reads, whatever the load is: a table goes by tokens alone


def load(
    run: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"A recorded run; repeatable. Default: {', '.join(RUNS)}, or all of a file of your own.",
        ),
    ] = None,
    trace: recorded.Trace = None,
    system: Annotated[
        SystemName, typer.Option(help="H100 GPUs, a target and a drafter whose costs are modelled.")
    ] = SystemName.LLAMA_70B,
    costs: Annotated[Path | None, typer.Option(metavar="FILE", help="A measured cost table in JSON instead.")] = None,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(
            metavar="B",
            min=1,
            help=f"Requests at a time, stage by stage; repeatable. Default: {', '.join(map(str, LOADS))}.",
        ),
    ] = None,
    num_drafts: Annotated[int, typer.Option(metavar="K", min=1, max=128, help="Drafts made to choose from.")] = 4,
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="Of queues.")] = 0,
    as_json: options.AsJson = False,
) -> None:
    """Simulate rising and falling load: fixed budgets, and one that adapts.

    A minute or two, no model, no GPU. Times are those of a cost table: modelled ones are no measurement.
    """
    documents, parts = [], []
    with errors_in_a_sentence(), progress() as bar:
        task = bar.add_task("simulating", total=None)
        loads = tuple(batch_size or LOADS)
        runs = recorded_runs(trace, run or (None if trace else RUNS))
        roofline = SYSTEMS[system.value]
        table = CostTable.load(costs) if costs else roofline.costs(CACHES, num_drafts)
        described = f"measured, {costs}" if costs else f"{roofline.describe()} Caches of {CACHES} requests."
        bar.update(task, total=len(runs) * len(loads) * len(make_policies(table, num_drafts)))
        for of in runs:
            stages = under_load(
                Replay(of),
                table,
                length=num_drafts,
                loads=loads,
                seed=seed,
                on_simulation=lambda: bar.advance(task),
            )
            documents.append(load_report.document(stages, of.name, table))
            parts.append(load_report.tables(stages, f"{of.name}, {num_drafts} drafts to choose from. {described}"))
    if as_json:
        typer.echo(json.dumps(documents, indent=2))
    else:
        console().print(Group(*parts))
