"""The command `tetris-decode`."""

from __future__ import annotations

import json
from dataclasses import asdict
from enum import Enum
from typing import Annotated

import typer
from rich.console import Console

from tetris_decode import replay_report
from tetris_decode.replay import compare
from tetris_decode.traces import SOURCE, load_runs

BATCH_SIZES = (8, 16, 32)
DRAFTS_PER_REQUEST = (0.5, 1.0, 2.0, 3.0, 4.0)
WIDTH = 100


class DrafterName(str, Enum):
    """What drafts in the demo."""

    NGRAM = "ngram"
    OWN_NGRAM = "own-ngram"
    LAYER_SKIP = "layer-skip"


# Plain error lines: boxed ones break sentences in the middle.
app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def tetris_decode() -> None:
    """TETRIS draft token selection (arXiv 2502.15197) at work."""


@app.command()
def demo(
    requests: Annotated[int, typer.Option(metavar="N", min=1, help="Prompts, decoded as one batch.")] = 16,
    max_new_tokens: Annotated[int, typer.Option(metavar="T", min=1, help="Tokens generated for each, at most.")] = 48,
    drafts_per_request: Annotated[
        float,
        typer.Option(
            "--drafts-per-request",
            "-k",
            metavar="K",
            min=0,
            max=128,
            help="Drafts verified per request in a step, on average over the batch; may be below 1.",
        ),
    ] = 1,
    extra: Annotated[
        int, typer.Option(metavar="E", min=0, max=128, help="Drafts beyond k that are made for TETRIS to choose from.")
    ] = 3,
    drafter: Annotated[
        DrafterName,
        typer.Option(
            help="n-grams of the request and a table, of the request alone, or the target without 4 of its layers."
        ),
    ] = DrafterName.NGRAM,
    rounds: Annotated[int, typer.Option(metavar="R", min=1, help="Runs of each policy; the median is shown.")] = 2,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Decode real prompts with SmolLM2-135M: no speculation, a fixed length, TETRIS.

    Live, on the CPU: about a minute. Needs the model and the prompts, which `make demo` installs.
    """
    # Not at the top: transformers takes seconds to import, and the other commands do without it.
    from tetris_decode.demo import Settings, run

    settings = Settings(requests, max_new_tokens, drafts_per_request, extra, drafter.value, rounds)
    try:
        run(settings, console(), as_json=as_json)
    except (FileNotFoundError, ValueError) as error:
        # The model or the prompts are missing, or not those that were expected.
        raise SystemExit(str(error)) from None


@app.command()
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
            help="Drafts verified per request, on average over the batch; repeatable. "
            "Default: 0.5 (if the batch sizes are even), 1, 2, 3, 4.",
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

    sizes = list(dict.fromkeys(batch_size or BATCH_SIZES))
    budgets = drafts_per_request or [k for k in DRAFTS_PER_REQUEST if all(k * size % 1 == 0 for size in sizes)]
    try:
        comparisons = [
            compare(runs[name], batch_size=size, drafts_per_request=k, extra=extra)
            for name in dict.fromkeys(run or runs)
            for size in sizes
            for k in dict.fromkeys(budgets)
        ]
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error

    if as_json:
        document = {"source": SOURCE, "extra": extra, "comparisons": [asdict(c) for c in comparisons]}
        typer.echo(json.dumps(document, indent=2))
    else:
        console().print(replay_report.tables(comparisons, extra))


@app.command()
def lossless(
    batches: Annotated[
        int, typer.Option(metavar="B", min=500, help="Independent batches for each way of selecting.")
    ] = 15_000,
    seed: Annotated[int, typer.Option(metavar="S", min=0, help="Of all random numbers.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """Show which ways of selecting keep the target's distribution.

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


def console() -> Console:
    """For tables of 100 columns."""
    made = Console(highlight=False)
    if not made.is_terminal:
        # A pipe or a file has no width; rich would take 80 columns and break the tables.
        made.width = WIDTH
    return made
