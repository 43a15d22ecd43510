"""The command `tetris-decode`, put together from its commands."""

from __future__ import annotations

import typer

from tetris_decode.commands.bench import bench
from tetris_decode.commands.calibrate import calibrate
from tetris_decode.commands.demo import demo
from tetris_decode.commands.load import load
from tetris_decode.commands.lossless import lossless
from tetris_decode.commands.plot import plot
from tetris_decode.commands.profile import profile
from tetris_decode.commands.record import record
from tetris_decode.commands.replay import replay
from tetris_decode.commands.simulate import simulate
from tetris_decode.commands.vllm_check import vllm_check

# Plain error lines: boxed ones break sentences in the middle.
app = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@app.callback()
def tetris_decode() -> None:
    """TETRIS draft token selection (arXiv 2502.15197) at work."""


for command in (demo, bench, profile, record, replay, simulate, load, calibrate, lossless, vllm_check):
    app.command()(command)
app.add_typer(plot, name="plot")
