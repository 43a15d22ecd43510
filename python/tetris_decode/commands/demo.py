"""`tetris-decode demo`."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import typer

from tetris_decode.commands.console import console


class DrafterName(str, Enum):
    """What drafts in the demo."""

    NGRAM = "ngram"
    OWN_NGRAM = "own-ngram"
    LAYER_SKIP = "layer-skip"


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
