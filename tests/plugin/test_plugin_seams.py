"""Places in a package's source: read, never imported."""

from __future__ import annotations

import pytest

from tetris_vllm import seams
from tetris_vllm.seams import Seam, is_there

SOURCE = """
raise RuntimeError("imported")

class Scheduler(Base):
    field: int = 0

    def __init__(self, config):
        self.running: list = []
        self.a, self.b = 1, 2
        other.elsewhere = 3

    @property
    def size(self):
        return 1

    def update(self, drafts, /, more, *rest, only=1, **options):
        local = 5

    def twice(self): ...
    def twice(self): ...

class Twice: ...
class Twice: ...

def compute(a, b): ...

_compiled = compile(compute)
"""


@pytest.fixture(autouse=True)
def package(tmp_path, monkeypatch):
    (tmp_path / "engine_of_tests" / "core").mkdir(parents=True)
    (tmp_path / "engine_of_tests" / "__init__.py").write_text("")
    (tmp_path / "engine_of_tests" / "core" / "scheduler.py").write_text(SOURCE)
    monkeypatch.syspath_prepend(str(tmp_path))
    seams._source.cache_clear()
    yield
    seams._source.cache_clear()


def seam(method, *names, owner="Scheduler", module="engine_of_tests.core.scheduler"):
    return Seam(module, owner, method, names)


@pytest.mark.parametrize(
    "place",
    [
        seam("update", "self", "drafts", "more", "rest", "only", "options"),
        seam("__init__", "self", "config"),
        seam("size", "self"),
        seam(None, "running"),
        seam(None, "a", "b", "field", "size", "update"),
        seam("compute", "a", "b", owner=""),
        seam(None, "_compiled", "compute", owner=""),
    ],
)
def test_places_that_are_there(place):
    assert is_there(place)


@pytest.mark.parametrize(
    "place",
    [
        seam("update", "self", "drafts"),
        seam("update", "drafts", "self", "more", "rest", "only", "options"),
        seam("gone", "self"),
        seam("twice", "self"),
        seam(None, "running", "gone"),
        seam(None, "elsewhere"),
        seam(None, "local"),
        seam("compute", "a", owner=""),
        seam(None, "running_", owner=""),
        seam(None, owner="Twice"),
        seam(None, owner="Gone"),
        seam(None, module="engine_of_tests.core.gone"),
        seam(None, module="engine_of_tests.gone.scheduler"),
        seam(None, module="not_there_at_all.core"),
    ],
)
def test_places_that_are_not(place):
    assert not is_there(place)


def test_how_a_place_is_named():
    assert str(seam("update", "self", "x")) == "engine_of_tests.core.scheduler.Scheduler.update(self, x)"
    assert str(seam("compute", "a", owner="")) == "engine_of_tests.core.scheduler.compute(a)"
    assert str(seam(None, "a", "b")) == "engine_of_tests.core.scheduler.Scheduler with a, b"
