"""What holds for every file: its size, what it imports, and what device code paths never do."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = "tetris_kernels"
MAX_LINES = 300
USES_THE_LIBRARY = {"tetris_decode", "tetris_vllm", "transformers", "vllm", "matplotlib"}

# A module imports only from below. A public stage is what is not named here, at PUBLIC.
LEVELS = {"checks": 0, "costs": 0, "types": 1, "kernels": 1, "reference": 1, "backend": 2, "ops": 3, "__init__": 5}
PUBLIC = 4

# They wait for the device, or allocate by what it holds.
SYNCS = {"item", "tolist", "cpu", "nonzero", "argwhere", "masked_select", "unique", "unique_consecutive"}


def tracked_files() -> list[Path]:
    """Python files under version control; all of them where there is none, as in an unpacked archive."""
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        return [path for name in listed.stdout.splitlines() if (path := ROOT / name).exists()]
    skipped = {"build", "dist"}
    return [
        path
        for path in ROOT.rglob("*.py")
        if not any(part in skipped or part.startswith(".") for part in path.relative_to(ROOT).parts)
    ]


FILES = tracked_files()
LIBRARY = [path for path in FILES if path.is_relative_to(ROOT / PACKAGE)]


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(tree: ast.AST) -> Iterator[str]:
    """Full names of the modules imported, also within functions and by importlib."""
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (alias.name for alias in names)
            case ast.ImportFrom(module=module, names=names, level=0):
                yield from (f"{module}.{alias.name}" for alias in names)
            case ast.ImportFrom(level=level) if level:
                yield "relative"
            case ast.Call(func=ast.Attribute(attr="import_module"), args=[ast.Constant(value=str(name)), *_]):
                yield name


def level_of(module: str) -> int:
    """Where `tetris_kernels.<module>...` stands."""
    parts = module.split(".")
    return LEVELS.get(parts[1] if len(parts) > 1 else "__init__", PUBLIC)


def is_mask(index: ast.expr) -> bool:
    """Whether a subscript looks like a boolean tensor."""
    match index:
        case ast.Compare():
            return True
        case ast.Name(id=name) | ast.Attribute(attr=name):
            return name.endswith("mask")
        case ast.UnaryOp(op=ast.Invert() | ast.Not()):
            return True
        case ast.BinOp(op=ast.BitAnd() | ast.BitOr(), left=left, right=right):
            return is_mask(left) or is_mask(right)
        case ast.Tuple(elts=parts):
            return any(map(is_mask, parts))
    return False


def offences(source: str) -> list[str]:
    """What the source does that no stage may do, line by line."""
    found = []
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Call(func=ast.Attribute(attr=name)) if name in SYNCS:
                found.append(f"{node.lineno}: {name}()")
            case ast.Call(func=ast.Attribute(attr="to"), args=[ast.Constant(value="cpu"), *_]):
                found.append(f"{node.lineno}: to('cpu')")
            case ast.Subscript(slice=index) if is_mask(index):
                found.append(f"{node.lineno}: boolean index")
            case ast.Assert():
                found.append(f"{node.lineno}: assert")
    return found


def test_the_rules_see_the_files() -> None:
    names = {name_of(path) for path in LIBRARY}
    assert {f"{PACKAGE}/{folder}selection.py" for folder in ("", "kernels/", "reference/")} <= names


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_files_have_a_subject(path: Path) -> None:
    assert path.stem not in ("utils", "util", "helpers", "misc", "common")


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_imports_of_the_library(path: Path) -> None:
    tops = {name.split(".")[0] for name in imports(ast.parse(path.read_text(encoding="utf-8")))}
    assert "relative" not in tops
    assert not tops & USES_THE_LIBRARY
    assert "triton" not in tops or path.parent.name == "kernels"
    assert tops <= set(sys.stdlib_module_names) | {"torch", "triton", "numpy", PACKAGE}


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_imports_point_one_way(path: Path) -> None:
    folder = path.parent.name
    own = LEVELS.get(path.stem, PUBLIC) if folder == PACKAGE else LEVELS[folder]
    for name in imports(ast.parse(path.read_text(encoding="utf-8"))):
        if name.split(".")[0] == PACKAGE and not (folder != PACKAGE and name.startswith(f"{PACKAGE}.{folder}")):
            assert level_of(name) < own, f"{name_of(path)} imports {name}"


@pytest.mark.parametrize("path", LIBRARY, ids=name_of)
def test_nothing_waits_for_the_device(path: Path) -> None:
    assert offences(path.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    ["x.item()", "x.tolist()", "f(x).cpu()", "x.to('cpu')", "x.nonzero()", "torch.nonzero(x)", "x[x > 0]", "x[~m]"]
    + ["x[mask]", "x[self.draft_mask, 0]", "x[(x > 0) & y]", "x[mask] = 0", "assert x", "torch.masked_select(x, m)"],
)
def test_offences_are_seen(source: str) -> None:
    assert len(offences(source)) == 1


@pytest.mark.parametrize("source", ["x[0]", "x[:, None]", "x[rows]", "x[a & 3]", "item(x)", "tl.load(p, mask=mask)"])
def test_what_is_allowed_is_not_an_offence(source: str) -> None:
    assert offences(source) == []


@pytest.mark.parametrize(
    ("source", "names"),
    [
        ("import a.b, c", ["a.b", "c"]),
        ("from a import b", ["a.b"]),
        ("def f():\n    import a", ["a"]),
        ("from . import b", ["relative"]),
        ("importlib.import_module('a.b')", ["a.b"]),
    ],
)
def test_imports_are_seen(source: str, names: list[str]) -> None:
    assert list(imports(ast.parse(source))) == names


def run_fresh(script: str) -> str:
    """The output of a script in a process of its own that finds this tree's packages first."""
    paths = [str(ROOT), str(ROOT / "python"), os.environ.get("PYTHONPATH", "")]
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, paths))
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


SELECT = "tetris_kernels.select(torch.zeros(4, 5), 8, draft_lens=torch.tensor([5, 1, 0, 3])).lens.tolist()"
STEP = """
ids = torch.ones(2, 3, dtype=torch.int64)
selection, scores = tetris_kernels.select_from_logits(torch.zeros(2, 3, 4), ids, 3)
packed = tetris_kernels.pack(selection, ids, ids[:, 0], ids[:, 0], capacity=5)
logits = torch.zeros(5, 4).index_fill_(1, torch.tensor([1]), 9.0)
accepted = tetris_kernels.accept(logits, packed, ids, torch.zeros(2, 4), temperature=0)
"""


def test_importing_the_library_imports_little() -> None:
    # torch goes first: what it imports by itself is not ours.
    script = "import sys, torch; before = set(sys.modules); import tetris_kernels\n"
    script += f"{SELECT}\n{STEP}\n"
    script += "print(*sorted({name.split('.')[0] for name in set(sys.modules) - before}))"
    imported = set(run_fresh(script).split())
    assert PACKAGE in imported
    assert not imported & ({"triton"} | USES_THE_LIBRARY)


def test_the_library_works_without_triton() -> None:
    script = "import sys; sys.modules['triton'] = None\nimport torch, tetris_kernels\n"
    assert run_fresh(f"{script}print({SELECT})") == "[4, 1, 0, 3]"
    assert (
        run_fresh(f"{script}{STEP}print(accepted.counts.tolist(), accepted.coupled.tolist())") == "[3, 2] [True, True]"
    )
    refused = f"{script}\ntry:\n    tetris_kernels.select(torch.zeros(4, 5), 8, backend='triton')\n"
    refused += "except ValueError as error:\n    print(error)"
    assert run_fresh(refused) == "backend: 'triton' needs the package triton, which is not installed"


def test_importing_the_library_asks_no_device() -> None:
    script = "import torch, tetris_kernels; print(torch.cuda.is_initialized())"
    assert run_fresh(script) == "False"
