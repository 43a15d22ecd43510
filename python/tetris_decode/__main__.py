"""`python -m tetris_decode`, and the command `tetris-decode`."""

from __future__ import annotations

import os

# What the extra `decode` brings. The last four are needed by some commands only.
OPTIONAL = ("rich", "typer", "matplotlib", "transformers", "gguf", "accelerate")


def main() -> None:
    # The bars of transformers would break into those of the commands. Read when tqdm is imported, which torch does.
    os.environ.setdefault("TQDM_DISABLE", "1")
    try:
        from tetris_decode.commands.app import app

        app(prog_name="tetris-decode")
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in OPTIONAL:
            raise
        raise SystemExit(
            f"tetris-decode needs {package}: pip install 'tetris-kernels[decode]' brings what it needs"
        ) from None


if __name__ == "__main__":
    main()
