"""`tetris-decode replay`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from tetris_decode import replay_report
from tetris_decode.commands.console import console
from tetris_decode.replay import compare
from tetris_decode.simulate import Replay
from tetris_decode.traces import load_runs

BATCH_SIZES = (8, 16, 32)
DRAFTS_PER_REQUEST = (0.5, 1.0, 2.0, 3.0, 4.0)


def replay(
    batch_size: Annotated[
        list[int] | None, typer.Option(metavar="B", help="Requests in a batch; repeatable. Default: 8, 16, 32.")
    ] = None,
    drafts_per_request: Annotated[
        list[float] | None,
        typer.Option(
            "--drafts-per-request",
            "-k",
            metavar="K",
            help="Drafts verified per request, on average over the batch; repeatable. Default: 0.5, 1, 2, 3, 4.",
        ),
    ] = None,
    extra: Annotated[
        int,
        typer.Option(metavar="E", help="Drafts beyond k that TETRIS may choose from; 8 offers all that were recorded."),
    ] = 2,
    run: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A recorded run; repeatable. Default: all.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Compare TETRIS with a fixed draft length.

    Replays recorded drafts: a few seconds, no model, no GPU.
    """
    runs = load_runs()
    unknown = [name for name in run or () if name not in runs]
    if unknown:
        raise typer.BadParameter(f"run: expected one of {', '.join(runs)}, got {unknown[0]}")

    names = list(dict.fromkeys(run or runs))
    replays = {name: Replay(runs[name]) for name in names}
    try:
        comparisons = [
            compare(replays[name], batch_size=size, drafts_per_request=k, extra=extra)
            for name in names
            for size in dict.fromkeys(batch_size or BATCH_SIZES)
            for k in dict.fromkeys(drafts_per_request or DRAFTS_PER_REQUEST)
        ]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error

    if as_json:
        about = {name: dict(runs[name].about) for name in names}
        document = {"runs": about, "extra": extra, "comparisons": [asdict(c) for c in comparisons]}
        typer.echo(json.dumps(document, indent=2))
    else:
        console().print(replay_report.tables(comparisons, [runs[name] for name in names], extra))
