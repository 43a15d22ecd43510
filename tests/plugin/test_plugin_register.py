"""The entry point, with a vLLM written for the purpose: it has the plugin's places and does nothing else."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tetris_decode.commands.app import app
from tetris_vllm.seams import SEAMS, Seam, version

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / "python"

SCRIPT = """
import json, logging, sys
from pathlib import Path
logging.basicConfig(stream=sys.stderr, level="INFO", format="%(message)s")
from vllm.config.scheduler import SchedulerConfig
from vllm.v1.worker.worker_base import WorkerWrapperBase
from vllm.v1.worker.gpu_model_runner import GPUModelRunner
from vllm.v1.spec_decode.llm_base_proposer import SpecDecodeBaseProposer
classes = SchedulerConfig, WorkerWrapperBase, GPUModelRunner, SpecDecodeBaseProposer
before = [dict(vars(cls)) for cls in classes]
from tetris_vllm.plugin import register
for _ in range(2):  # as vLLM may
    register()
changed = [name for cls, was in zip(classes, before) for name in vars(cls) if vars(cls)[name] is not was.get(name)]
print(json.dumps([changed, sorted(name for name in sys.modules if name.startswith("tetris_vllm."))]))
"""


def write_package(folder: Path, places: tuple[Seam, ...]) -> None:
    """Modules with just these places."""
    modules: dict[str, dict[str, list[str]]] = {}
    for place in places:
        body = modules.setdefault(place.module, {}).setdefault(place.owner, [])
        if place.method is None:
            body += [f"    {name}: object = None" for name in place.names]
        else:
            body.append(f"    def {place.method}({', '.join(place.names)}): return 'as it was'")
    for module, classes in modules.items():
        path = folder / Path(*module.split(".")).with_suffix(".py")
        path.parent.mkdir(parents=True, exist_ok=True)
        for parent in path.parents:
            if parent == folder:
                break
            (parent / "__init__.py").touch()
        path.write_text("\n".join(f"class {name}:\n" + "\n".join(body) for name, body in classes.items()))


def run(folder: Path, places: tuple[Seam, ...], **environment: str) -> tuple[list[str], list[str], str, int]:
    """What has changed of its classes, which modules of the plugin were imported, and what was logged."""
    write_package(folder, places)
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(folder), str(ROOT), str(PYTHON)])} | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    changed, imported = json.loads(done.stdout) if done.returncode == 0 else ([], [])
    return changed, imported, done.stderr, done.returncode


def test_off_it_touches_nothing(tmp_path):
    changed, _, logged, _ = run(tmp_path, SEAMS, TETRIS_VLLM_SCORE="top")
    assert (changed, logged) == ([], "")


def test_on_it_takes_hold_of_two_methods(tmp_path):
    # What vLLM brings with it.
    (tmp_path / "prometheus_client.py").write_text(
        "class REGISTRY:\n    register = staticmethod(lambda it: it.collect)\n"
    )
    changed, imported, logged, _ = run(tmp_path, SEAMS, TETRIS_VLLM_BUDGET="1x")
    assert changed == ["get_scheduler_cls", "_tetris_patched", "init_device"]
    assert logged.splitlines() == ["tetris_vllm: TETRIS_VLLM_BUDGET=1x"]
    assert "tetris_vllm.scheduler" not in imported


@pytest.mark.parametrize("gone", [place for place in SEAMS if place.method], ids=str)
def test_without_one_of_its_places_it_says_so_and_touches_nothing(tmp_path, gone):
    if gone.owner in ("WorkerWrapperBase", "SchedulerConfig", "GPUModelRunner", "SpecDecodeBaseProposer"):
        stays = gone._replace(names=(*gone.names, "more"))
    else:
        stays = gone._replace(method="renamed")
    changed, _, logged, _ = run(tmp_path, (*(p for p in SEAMS if p != gone), stays), TETRIS_VLLM_BUDGET="1x")
    assert changed == []
    assert (
        logged.splitlines()
        == [f"tetris_vllm: vLLM {version()} is not supported, so nothing is changed. It does not have {gone}"] * 2
    )


def test_wrong_settings_end_the_start(tmp_path):
    *_, logged, status = run(tmp_path, SEAMS, TETRIS_VLLM_BUDGET="many")
    assert status == 1
    assert logged.splitlines()[-1].startswith("ValueError: TETRIS_VLLM_BUDGET: expected ")


def test_the_check_without_vllm():
    if version() is not None:
        pytest.skip("vLLM is installed here")
    result = CliRunner().invoke(app, ["vllm-check"])
    assert (result.exit_code, result.output) == (1, "vLLM is not installed here\n")
    document = json.loads(CliRunner().invoke(app, ["vllm-check", "--json"]).output)
    assert document["version"] is None and document["verdict"] == "vLLM is not installed here"


def test_only_two_modules_need_vllm_when_they_are_imported():
    """The others are of use, and tested, without it."""
    needing = []
    for path in sorted((PYTHON / "tetris_vllm").glob("*.py")):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            if any(name.split(".")[0] == "vllm" for name in names):
                needing.append(path.stem)
                break
    assert needing == ["drafts", "scheduler"]
