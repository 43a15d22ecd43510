"""`tetris-decode simulate`."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from tetris_decode import simulate_report
from tetris_decode.commands import options, recorded
from tetris_decode.commands.console import console, errors_in_a_sentence, partial_results, progress
from tetris_decode.commands.recorded import recorded_runs
from tetris_decode.optimality import OBJECTIVES, READINGS, Setting, experiment
from tetris_decode.paper import LENGTHS, study
from tetris_decode.paper import Setting as Studied
from tetris_decode.roofline import SYSTEMS
from tetris_decode.simulate import Replay
from tetris_decode.traces import Run
from tetris_kernels import CostTable

BATCH_SIZES = (16, 32, 64)
PARTIAL = Path("tetris-decode-simulate.json")
RUNS = ("layer-skip@T0",)


class SystemName(str, Enum):
    """A modelled GPU system."""

    LLAMA_70B = "llama-70b"
    LLAMA_405B = "llama-405b"
    VICUNA_33B = "vicuna-33b"


def simulate(
    run: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help=f"A recorded run; repeatable. Default: {', '.join(RUNS)}, or all of a file of your own.",
        ),
    ] = None,
    trace: recorded.Trace = None,
    system: Annotated[
        list[SystemName] | None,
        typer.Option(help="H100 GPUs, a target and a drafter whose costs are modelled; repeatable. Default: all."),
    ] = None,
    costs: Annotated[Path | None, typer.Option(metavar="FILE", help="A measured cost table in JSON instead.")] = None,
    batch_size: Annotated[
        list[int] | None,
        typer.Option(metavar="B", min=1, help="Requests at a time; repeatable. Default: 16, 32, 64."),
    ] = None,
    requests: Annotated[
        int, typer.Option(metavar="N", min=1, help="In all; recorded ones come again if more are wanted.")
    ] = 512,
    resamples: Annotated[
        int, typer.Option(metavar="R", min=2, help="Bootstrap samples of the recorded requests, for intervals.")
    ] = 20,
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="Of queues, samples and instances.")] = 0,
    theorem_2: Annotated[
        bool, typer.Option("--theorem-2", help="Theorem 2 as an experiment on small batches instead.")
    ] = False,
    instances: Annotated[int, typer.Option(metavar="M", min=1, help="Random ones of --theorem-2.")] = 100,
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where Ctrl-C leaves what is complete, as JSON.")] = PARTIAL,
    as_json: options.AsJson = False,
) -> None:
    """Simulate the paper's comparison on recorded drafts.

    TETRIS, fixed lengths, DSD and others. Minutes, no model, no GPU. Times are those of a cost table: modelled ones are
    no measurement.
    """
    if theorem_2:
        _theorem(instances, seed, as_json=as_json)
        return
    settings: list[Studied] = []
    tables: dict[tuple[str, int], CostTable] = {}
    chosen: list[Run] = []

    def document() -> str:
        return json.dumps(simulate_report.document(settings, chosen, list(tables.values())), indent=2)

    def save() -> Path | None:
        if settings:
            out.write_text(document(), encoding="utf-8")
        return out if settings else None

    with partial_results(save), errors_in_a_sentence(), progress() as bar:
        task = bar.add_task("simulating", total=None)
        chosen += recorded_runs(trace, run or (None if trace else RUNS))
        systems = {name.value: SYSTEMS[name.value] for name in system or SystemName}
        for size in dict.fromkeys(batch_size or BATCH_SIZES):
            if costs:
                tables[costs.stem, size] = CostTable.load(costs)
            else:
                length = max(r.num_drafts for r in chosen)
                tables |= {(name, size): roofline.costs(size, length) for name, roofline in systems.items()}
        for of in chosen:
            replay = Replay(of)
            for (name, size), table in sorted(tables.items()):
                bar.update(task, description=f"simulating {of.name}, {name}, {size} requests at a time")
                settings.append(
                    study(
                        replay,
                        table,
                        system=name,
                        batch_size=size,
                        num_requests=requests,
                        resamples=resamples,
                        seed=seed,
                        on_simulation=lambda: bar.advance(task),
                    )
                )

    if as_json:
        typer.echo(document())
    else:
        described = {name: roofline.describe() for name, roofline in systems.items()}
        if costs:
            described = {costs.stem: f"measured, {costs}"}
        about = f"{requests} requests, all there from the beginning; k = {LENGTHS[0]} to {LENGTHS[-1]}. Costs:"
        console().print(simulate_report.tables(settings, chosen, about, described))


def _theorem(instances: int, seed: int, *, as_json: bool) -> None:
    setting = Setting()
    with progress() as bar:
        task = bar.add_task("solving", total=len(READINGS) * len(OBJECTIVES) * instances)
        losses = experiment(setting, instances, seed, on_instance=lambda: bar.advance(task))
    if as_json:
        document = {"setting": asdict(setting), "readings": READINGS, "losses": [asdict(loss) for loss in losses]}
        typer.echo(json.dumps(document, indent=2))
    else:
        console().print(simulate_report.theorem(losses, setting))
