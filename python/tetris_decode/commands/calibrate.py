"""`tetris-decode calibrate`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from tetris_decode import calibrate_report
from tetris_decode.calibrate import RAW, Fitted, Gained, cross_fitted, fitted, gained
from tetris_decode.calibrators import FITS
from tetris_decode.commands import options, recorded
from tetris_decode.commands.console import console, errors_in_a_sentence, progress
from tetris_decode.commands.recorded import recorded_runs

DRAFTS_PER_REQUEST = (0.5, 1.0, 2.0, 3.0)


def calibrate(
    batch_size: Annotated[int, typer.Option(metavar="B", min=1, help="Requests in a batch.")] = 32,
    drafts_per_request: Annotated[
        list[float] | None,
        typer.Option(
            "--drafts-per-request",
            "-k",
            metavar="K",
            help="Drafts verified per request, on average over the batch; repeatable. Default: 0.5, 1, 2, 3.",
        ),
    ] = None,
    trace: recorded.Trace = None,
    run: recorded.Names = None,
    as_json: options.AsJson = False,
) -> None:
    """What calibrating the scores of recorded drafts gains.

    Reliability, ranking, and accepted drafts under TETRIS. Less than a minute, no model, no GPU.
    """
    fits: list[Fitted] = []
    gains: list[Gained] = []
    with errors_in_a_sentence(), progress() as bar:
        runs, budgets = recorded_runs(trace, run), dict.fromkeys(drafts_per_request or DRAFTS_PER_REQUEST)
        task = bar.add_task("calibrating", total=len(runs) * (len(FITS) + len(budgets) * (len(FITS) + 2)))
        for of in runs:
            scores = {RAW: of.log_q}
            for name in FITS:
                scores[name] = cross_fitted(of, name)
                bar.advance(task)
            fits += fitted(of, scores)
            for k in budgets:
                gains += gained(
                    of,
                    scores,
                    batch_size=batch_size,
                    drafts_per_request=k,
                    on_simulation=lambda: bar.advance(task),
                )

    if as_json:
        typer.echo(json.dumps(calibrate_report.document(fits, gains, runs, batch_size), indent=2))
    else:
        console().print(calibrate_report.tables(fits, gains, runs, batch_size))
