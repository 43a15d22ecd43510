"""Counters that one process writes and another one reads for Prometheus."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tetris_vllm.counters import NAMES, Counters, read
from tetris_vllm.settings import COUNTERS


@pytest.fixture(autouse=True)
def directory(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv(COUNTERS, str(tmp_path))
    return tmp_path


def test_sums_by_model_and_engine(directory):
    first, again, other = Counters.create("a", "0"), Counters.create("a", "0"), Counters.create("a/b", "1")
    first.add(proposed=4, verified=2, seconds=0.25)
    first.add(proposed=4)
    again.add(proposed=1)
    other.add(accepted=7)
    nothing = dict.fromkeys(NAMES, 0.0)
    assert read(directory) == {
        ("a", "0"): nothing | {"proposed": 9, "verified": 2, "seconds": 0.25},
        ("a/b", "1"): nothing | {"accepted": 7},
    }


def test_an_inherited_directory_may_be_gone(directory):
    directory.rmdir()
    Counters.create("m", "0").add(steps=2)
    assert read(directory)["m", "0"]["steps"] == 2


def test_a_file_that_is_being_made_is_passed_over(directory):
    (directory / "1-0").write_bytes(b"")
    assert read(directory) == {}


def test_another_process_counts(directory):
    script = "from tetris_vllm.counters import Counters; Counters.create('m', '0').add(steps=3)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    assert read(directory)["m", "0"]["steps"] == 3


def test_the_process_that_made_the_directory_removes_it():
    """And not one that was forked from it, which leaves by its exit handlers too."""
    script = """
import os, sys
from tetris_vllm import counters
directory = counters.share()
if os.fork() == 0:
    counters.Counters.create("m", "0").add(steps=1)
    sys.exit()
os.wait()
print(directory, counters.read(directory)["m", "0"]["steps"], counters.share() == directory)
"""
    environment = {name: value for name, value in os.environ.items() if name != COUNTERS}
    done = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    path, steps, same = done.stdout.split()
    assert (steps, same) == ("1.0", "True")
    assert not Path(path).exists()
