"""`python -m tetris_decode`."""

from tetris_decode.cli import app

app(prog_name="tetris-decode")
