"""What numbers were measured on."""

from __future__ import annotations

import contextlib
import platform
from pathlib import Path

import torch
import transformers


def machine(device: torch.device | str = "cpu") -> str:
    """The processor, or the GPU, and the versions that matter."""
    return f"{_processor(torch.device(device))}, {versions()}"


def versions() -> str:
    """Of what computes."""
    return f"torch {torch.__version__}, transformers {transformers.__version__}"


def _processor(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    model = platform.processor() or platform.machine()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return f"{model}, {torch.get_num_threads()} threads"
