"""`tetris-decode lossless`."""

from __future__ import annotations

import json
from typing import Annotated

import typer
from rich.console import Console

from tetris_decode.commands.console import console


def lossless(
    batches: Annotated[
        int, typer.Option(metavar="B", min=500, help="Independent batches for each way of selecting.")
    ] = 15_000,
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="Of all random numbers.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show which ways of selecting keep the target's law.

    Runs score, select, pack and accept on Markov chains, whose law is known: a few minutes, no model, no GPU. Fails
    unless the lossless ways fit the law and the biased one does not.
    """
    from tetris_decode import lossless as trial
    from tetris_decode import lossless_report

    settings = trial.Settings(batches=batches, seed=seed)
    with Console(stderr=True).status("") as status:
        report = trial.run(settings, lambda name: status.update(name))
    if as_json:
        typer.echo(json.dumps(lossless_report.document(report), indent=2))
    else:
        console().print(lossless_report.table(report))
    raise typer.Exit(code=0 if report.holds else 1)
