"""`tetris-decode record`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tetris_decode.commands.demo import DrafterName


def record(
    out: Annotated[Path, typer.Option(metavar="FILE", help="Where to, .npz. Runs of other names in it stay.")],
    drafter: Annotated[
        list[DrafterName] | None, typer.Option(help="What drafts, as in the demo; repeatable. Default: ngram.")
    ] = None,
    temperature: Annotated[
        list[float] | None, typer.Option(metavar="T", min=0, help="Repeatable: a run for each. Default: 0 and 0.7.")
    ] = None,
    requests: Annotated[int, typer.Option(metavar="N", min=1, help="Prompts, at most.")] = 145,
    max_new_tokens: Annotated[int, typer.Option(metavar="T", min=1, help="Tokens generated for each, at most.")] = 48,
    batch_size: Annotated[int, typer.Option(metavar="B", min=1, help="Requests at a time.")] = 16,
) -> None:
    """Record drafts and their acceptance at every position of real texts, for replay and simulate.

    Live, on the CPU, minutes for each run. Ctrl-C leaves what was recorded by then in the file. Needs the model and
    the prompts, which `make demo` installs.
    """
    # Not at the top: transformers takes seconds to import, and other commands do without it.
    from tetris_decode.record_runs import Settings, record_runs

    drafters = [name.value for name in drafter or (DrafterName.NGRAM,)]
    temperatures = [0.0, 0.7] if temperature is None else temperature
    settings = Settings(tuple(drafters), tuple(temperatures), requests, max_new_tokens, batch_size)
    try:
        interrupted = record_runs(settings, out)
    except (OSError, ValueError) as error:
        # The model or the prompts are missing, or not those that were expected; or the file is something else.
        raise SystemExit(str(error)) from None
    raise typer.Exit(code=130 if interrupted else 0)
