"""Which implementation runs a stage: plain torch, or Triton where it can run and the batch fits."""

from __future__ import annotations

import functools
import importlib
import importlib.util
import os
from types import ModuleType

import torch

from tetris_kernels.reference import acceptance, budgeting, expectation, packing, scoring, selection

BACKENDS = ("auto", "torch", "triton")
TRITON_DEVICES = ("cuda", "xpu")  # ROCm devices are called "cuda" too
REFERENCE = {
    "scoring": scoring,
    "selection": selection,
    "expectation": expectation,
    "budgeting": budgeting,
    "packing": packing,
    "acceptance": acceptance,
}


def check_backend(backend: str, device: torch.device) -> None:
    """Refuse a backend that is unknown or cannot run on `device`: nothing else is tried in its place."""
    if not isinstance(backend, str) or backend not in BACKENDS:
        raise ValueError(f"backend: expected one of {', '.join(map(repr, BACKENDS))}, got {backend!r}")
    if backend != "triton":
        return
    if not _has_triton():
        raise ValueError("backend: 'triton' needs the package triton, which is not installed")
    if device.type not in TRITON_DEVICES and not (device.type == "cpu" and _interpreted()):
        raise ValueError(
            "backend: 'triton' expects a CUDA, ROCm or XPU tensor (a CPU tensor only under TRITON_INTERPRET=1), "
            f"got one on {device}"
        )


def implementation(stage: str, backend: str, device: torch.device, *sizes: int) -> ModuleType:
    """The module that is to run a stage; `sizes` are what the stage's `kernels.<stage>.fits` takes."""
    if backend == "torch" or (backend == "auto" and (device.type not in TRITON_DEVICES or not _has_triton())):
        return REFERENCE[stage]
    kernels = triton_kernels(stage)
    if backend == "triton" or kernels.fits(*sizes):
        return kernels
    return REFERENCE[stage]


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def triton_kernels(stage: str) -> ModuleType:
    """The Triton side of a stage, imported at its first use."""
    return importlib.import_module(f"tetris_kernels.kernels.{stage}")


def _interpreted() -> bool:
    # Triton reads the variable when it is imported; reading it here does not import triton.
    return os.environ.get("TRITON_INTERPRET", "0").lower() in ("1", "true", "yes", "on", "y")
