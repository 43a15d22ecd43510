"""`tetris-decode vllm-check`."""

from __future__ import annotations

import json
import os

import typer

from tetris_decode.commands import options


def vllm_check(as_json: options.AsJson = False) -> None:
    """Say whether the vLLM in this environment is supported, and what the plugin will do (docs/vllm.md).

    Reads the installed packages and the variables TETRIS_VLLM_...; starts nothing. Status 1 if the plugin cannot work.
    """
    from tetris_vllm.check import report

    found = report(os.environ)
    if as_json:
        typer.echo(json.dumps({**found._asdict(), "verdict": found.verdict}, indent=2))
    else:
        for place in found.found:
            typer.echo(f"found    {place}")
        for place in found.missing:
            typer.echo(f"missing  {place}")
        typer.echo(found.verdict)
    raise typer.Exit(code=0 if found.works else 1)
