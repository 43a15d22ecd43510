"""`tetris-decode replay`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Annotated

import typer

from tetris_decode import replay_report
from tetris_decode.commands import options, recorded
from tetris_decode.commands.console import console, errors_in_a_sentence
from tetris_decode.commands.recorded import recorded_runs
from tetris_decode.replay import compare
from tetris_decode.simulate import Replay

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
    trace: recorded.Trace = None,
    run: recorded.Names = None,
    as_json: options.AsJson = False,
) -> None:
    """Compare TETRIS with a fixed draft length.

    Replays recorded drafts: a few seconds, no model, no GPU.
    """
    with errors_in_a_sentence():
        runs = recorded_runs(trace, run)
        comparisons = [
            compare(replay, batch_size=size, drafts_per_request=k, extra=extra)
            for replay in map(Replay, runs)
            for size in dict.fromkeys(batch_size or BATCH_SIZES)
            for k in dict.fromkeys(drafts_per_request or DRAFTS_PER_REQUEST)
        ]

    if as_json:
        about = {run.name: dict(run.about) for run in runs}
        document = {"runs": about, "extra": extra, "comparisons": [asdict(c) for c in comparisons]}
        typer.echo(json.dumps(document, indent=2))
    else:
        console().print(replay_report.tables(comparisons, runs, extra))
