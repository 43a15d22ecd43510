"""The C++ peers: compiled on first use with the machine's compiler, called through ctypes.

`heap.cpp`, `nth_element.cpp` and `radix.cpp` have one function of one signature each and name their source.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from bench.peers.peer import Select, Unavailable

FOLDER = Path(__file__).parent
FLAGS = ("-O3", "-march=native", "-std=c++20", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror")


def load(name: str) -> Select:
    """The peer of `<name>.cpp`.

    Raises:
        Unavailable: there is no C++ compiler, or it refuses the source.
    """
    run = _function(_compiled(FOLDER / f"{name}.cpp"))

    def select(draft_logprobs: Tensor, budget: int | Tensor, draft_lens: Tensor | None) -> tuple[Tensor, Tensor]:
        num_requests, num_drafts = draft_logprobs.shape
        lens = torch.empty(num_requests, dtype=torch.int32)
        cu_lens = torch.empty(num_requests + 1, dtype=torch.int32)
        run(
            draft_logprobs.data_ptr(),
            num_requests,
            num_drafts,
            int(budget),
            None if draft_lens is None else draft_lens.data_ptr(),
            lens.data_ptr(),
            cu_lens.data_ptr(),
        )
        return lens, cu_lens

    return select


def compiler() -> str:
    """The path of `$CXX`, or of `c++`."""
    name = os.environ.get("CXX", "c++")
    found = shutil.which(name)
    if found is None:
        raise Unavailable(f"the C++ peers need a compiler, and there is no {name!r} on the path")
    return found


def _function(library: Path) -> Callable[..., None]:
    function = ctypes.CDLL(str(library)).select_drafts
    pointer, int32 = ctypes.c_void_p, ctypes.c_int32
    function.argtypes = (pointer, int32, int32, ctypes.c_int64, pointer, pointer, pointer)
    function.restype = None
    return function


def _compiled(source: Path) -> Path:
    """The library of a source, in a cache that is keyed by all that decides the machine code."""
    command = [compiler(), *FLAGS]
    version = subprocess.run([command[0], "--version"], capture_output=True, text=True, check=True).stdout
    parts = [source.read_text(), (FOLDER / "fixed_point.hpp").read_text(), *command, version, _processor()]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    library = _cache() / f"{source.stem}-{key}.so"
    if not library.exists():
        # Under another name first: a second process may be at the same.
        with tempfile.TemporaryDirectory(dir=library.parent) as folder:
            output = Path(folder) / "peer.so"
            done = subprocess.run([*command, str(source), "-o", str(output)], capture_output=True, text=True)
            if done.returncode != 0:
                raise Unavailable(f"{command[0]} refused {source.name}:\n{done.stderr}")
            output.replace(library)
    return library


def _processor() -> str:
    """What -march=native depends on."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())


def _cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root) / "tetris_kernels" / "peers"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if os.access(folder, os.W_OK):
            return folder
    except OSError:
        pass
    return Path(tempfile.mkdtemp(prefix="tetris-kernels-peers-"))
