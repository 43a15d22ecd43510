"""The wheel and the sdist: built, installed into an empty environment, and complete."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
import tarfile
import venv
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

import tetris_kernels

ROOT = Path(__file__).parents[1]
VERSION = tetris_kernels.__version__
FOLDERS = {
    "tetris_kernels": "tetris_kernels",
    "tetris_decode": "python/tetris_decode",
    "tetris_vllm": "python/tetris_vllm",
}


def run(*command: object, **options: object) -> str:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def dist(tmp_path_factory) -> Path:
    """The sdist, and the wheel that is built from it and not from the checkout."""
    source, out = tmp_path_factory.mktemp("source") / "tree", tmp_path_factory.mktemp("dist")
    ignored = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    shutil.copytree(ROOT, source, ignore=ignored)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out, source)
    return out


@pytest.fixture(scope="module")
def site_packages(dist, tmp_path_factory) -> Path:
    """An environment with nothing in it but the wheel."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=True)
    wheel = next(dist.glob("*.whl"))
    run(home / "bin/python", "-m", "pip", "install", "--no-deps", "--no-index", wheel)
    return next(home.glob("lib/python*/site-packages"))


def test_wheel_holds_the_packages_and_nothing_else(dist):
    wheel = next(dist.glob("*.whl"))
    assert wheel.name == f"tetris_kernels-{VERSION}-py3-none-any.whl"
    names = set(zipfile.ZipFile(wheel).namelist())
    for package, folder in FOLDERS.items():
        files = [path for path in (ROOT / folder).rglob("*") if path.is_file() and "__pycache__" not in path.parts]
        expected = {f"{package}/{path.relative_to(ROOT / folder).as_posix()}" for path in files}
        assert {name for name in names if name.startswith(f"{package}/")} == expected
    tops = {name.split("/")[0] for name in names}
    assert tops == {*FOLDERS, f"tetris_kernels-{VERSION}.dist-info"}


def test_sdist_holds_what_a_packager_needs(dist):
    with tarfile.open(next(dist.glob("*.tar.gz"))) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert {"LICENSE", "README.md", "DESIGN.md", "setup.py", "pyproject.toml", "Makefile"} <= names
    assert {"tests/oracle.py", "tests/test_selection.py", "python/tetris_decode/data/traces.npz"} <= names
    assert {"tetris_kernels/packing.py", "tetris_kernels/kernels/packing.py"} <= names
    assert "tetris_kernels/reference/packing.py" in names


def test_metadata(site_packages):
    text = next(site_packages.glob("tetris_kernels-*.dist-info/METADATA")).read_text()
    header = text.partition("\n\n")[0].splitlines()
    assert f"Version: {VERSION}" in header
    assert "License-Expression: Apache-2.0" in header or "License: Apache-2.0" in header
    requires = {line.partition(": ")[2] for line in header if line.startswith("Requires-Dist: ")}
    base = {line.split(";")[0].strip() for line in requires if "extra ==" not in line}
    assert base == {"torch>=2.13", "triton>=3.6", "numpy>=1.26"}
    extras = {line.partition(": ")[2] for line in header if line.startswith("Provides-Extra: ")}
    assert extras == {"decode", "test", "dev"}
    assert "vllm" not in text.partition("\n\n")[0]


def test_vllm_finds_its_plugin(site_packages):
    (plugin,) = metadata.Distribution.at(next(site_packages.glob("tetris_kernels-*.dist-info"))).entry_points.select(
        group="vllm.general_plugins"
    )
    assert (plugin.name, plugin.value) == ("tetris", "tetris_vllm.plugin:register")


def test_installed_wheel_works(site_packages, tmp_path):
    """The dependencies come from this environment, the two packages from the wheel."""
    code = (
        "import tetris_kernels, tetris_decode, torch\n"
        "from tetris_decode.traces import load_runs\n"
        "print(tetris_kernels.__file__, tetris_decode.__file__, len(load_runs()))\n"
        "picked = tetris_kernels.select(torch.zeros(2, 3), 4)\n"
        "ids = torch.arange(6).view(2, 3)\n"
        "packed = tetris_kernels.pack(picked, ids, ids[:, 0], ids[:, 0], capacity=8)\n"
        "print(picked.lens.tolist(), packed.input_ids.tolist())\n"
    )
    lines = run(
        sys.executable, "-c", code, cwd=tmp_path, env=os.environ | {"PYTHONPATH": str(site_packages)}
    ).splitlines()
    assert lines[0].count(str(site_packages)) == 2 and lines[0].endswith(" 4")
    assert lines[1] == "[2, 2] [0, 0, 1, 3, 3, 4, 0, 0]"


def test_every_package_is_listed():
    """In setup.py by name, so that a new folder is not forgotten."""
    (listed,) = (
        ast.literal_eval(keyword.value)
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text()))
        if isinstance(node, ast.Call)
        for keyword in node.keywords
        if keyword.arg == "packages"
    )
    found = [
        ".".join(path.parent.relative_to(top).parts)
        for top in (ROOT, ROOT / "python")
        for package in FOLDERS
        for path in (top / package).rglob("__init__.py")
    ]
    assert sorted(listed) == sorted(found)


def test_setup_runs_no_command_and_imports_nothing_heavy():
    text = (ROOT / "setup.py").read_text()
    imports = {line for line in text.splitlines() if line.startswith(("import ", "from "))}
    assert imports == {"from pathlib import Path", "from setuptools import setup"}
