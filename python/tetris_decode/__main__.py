"""`python -m tetris_decode`, and the command `tetris-decode`."""

from __future__ import annotations


def main() -> None:
    try:
        from tetris_decode.cli import app
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in ("rich", "typer"):
            raise
        raise SystemExit(
            f"tetris-decode needs {package}: pip install 'tetris-kernels[decode]' brings what it needs"
        ) from None
    app(prog_name="tetris-decode")


if __name__ == "__main__":
    main()
