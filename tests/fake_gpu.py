"""A Triton driver without a GPU: the real path from a launch to machine code, and then nothing runs.

It shows which compilations a call asks for and what reaches the launcher. Nothing is executed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, TypeVar

import pytest
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.driver import DriverBase

from tetris_kernels.kernels import catalogue

Driver = TypeVar("Driver", bound="FakeDriver")

VARIANTS = catalogue.variants()
KERNELS = {variant.kernel for variant in VARIANTS}


class _Utils:
    def load_binary(self, name: str, kernel: bytes, shared: int, device: int) -> tuple[int, int, int, int, int]:
        return 0, 0, 32, 0, 1024

    def unload_module(self, module: int) -> None:
        pass

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 227 << 10, "multiprocessor_count": 132, "warpSize": 32, "max_num_regs": 65536}


class FakeDriver(DriverBase):
    """An sm_90 device on which a launch only notes its arguments in `launches`."""

    def __init__(self) -> None:
        self.utils = _Utils()
        self.launches: list[tuple[Any, ...]] = []
        launches = self.launches

        class Launcher:
            def __init__(self, source: Any, metadata: Any) -> None:
                self.source = source

            def __call__(self, grid_x: int, grid_y: int, grid_z: int, stream: int, function: int, *rest: Any) -> None:
                launches.append((self.source, (grid_x, grid_y, grid_z), rest))

        self.launcher_cls = Launcher

    @classmethod
    def is_active(cls) -> bool:
        return True

    def get_current_device(self) -> int:
        return 0

    def set_current_device(self, device: int) -> None:
        pass

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def map_python_to_cpp_type(self, ty: str) -> str:
        return ty

    def get_active_torch_device(self) -> Any:
        raise NotImplementedError("nothing here runs on a device")

    def get_benchmarker(self) -> Any:
        raise NotImplementedError("nothing here runs on a device")


class _Forgetful(dict[int, Any]):
    """Keeps nothing."""

    def __setitem__(self, device: int, compiled: Any) -> None:
        pass


@contextlib.contextmanager
def active(fake: Driver, dispatched: bool = True) -> Iterator[Driver]:
    """Triton has this driver, and no kernel is compiled yet.

    The launchers take CPU tensors here: a FakeDriver's launch does nothing with their pointers. dispatched: each
    launch goes by Triton's dispatch, which sees what its arguments ask for, and not only the first one of a variant.
    """
    before = triton.runtime.driver._active
    with pytest.MonkeyPatch.context() as patch:
        for variant in VARIANTS:
            patch.setitem(vars(variant), "loaded", _Forgetful() if dispatched else {})
        triton.runtime.driver.set_active(fake)
        _forget()
        try:
            yield fake
        finally:
            # Kernels are unloaded by the driver that loaded them.
            for variant in VARIANTS:
                variant.loaded.clear()
            _forget()
            triton.runtime.driver._active = before


def num_compiled() -> int:
    """How many compilations calls have asked for."""
    return sum(len(cache[0]) for kernel in KERNELS for cache in kernel.device_caches.values())


def _forget() -> None:
    for kernel in KERNELS:
        kernel.device_caches.clear()
