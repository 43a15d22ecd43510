"""Run the tests on this machine's GPU and print a report to paste into an issue: `make test-gpu`."""

from __future__ import annotations

import platform
import sys

import pytest
import torch
import triton

import tetris_kernels


def main() -> int:
    if not torch.cuda.is_available():
        print(f"No CUDA or ROCm GPU that torch {torch.__version__} can use: nothing was checked.")
        return 1
    status = pytest.main(["-q", "-p", "no:cacheprovider", "-m", "kernel", "tests"])
    files = [f"tests/test_gpu{name}.py" for name in ("", "_stages", "_calibration")]
    status |= pytest.main(["-q", "-p", "no:cacheprovider", *files, "tests/decode/test_gpu_decoder.py"])
    print("\n--- report ---")
    print(f"tetris_kernels {tetris_kernels.__version__}, torch {torch.__version__}, triton {triton.__version__}")
    print(f"Python {platform.python_version()}, {platform.platform()}")
    print(f"CUDA {torch.version.cuda}, HIP {torch.version.hip}")
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        print(f"cuda:{index}: {properties.name}, compute capability {properties.major}.{properties.minor}")
    print("all device tests passed" if status == 0 else f"FAILED (pytest status {int(status)})")
    return int(status)


if __name__ == "__main__":
    sys.exit(main())
