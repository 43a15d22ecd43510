"""A Triton driver on which launches run on the machine: the real launchers take CPU tensors, and get results."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import fake_gpu
import numpy as np
import pytest
import torch
from torch import Tensor
from triton.backends.compiler import GPUTarget

from ptx import launch
from ptx.memory import GlobalMemory
from ptx.types import Array, Mask
from tetris_kernels import backend
from tetris_kernels.kernels import catalogue

Described = tuple[str, tuple[tuple[str, Any], ...], tuple[tuple[str, Any], ...]]


def _describe(kernel: Any, signature: dict[str, Any], constants: dict[str, Any]) -> Described:
    runtime = {name: kind for name, kind in signature.items() if name not in constants}
    return kernel.__name__, tuple(sorted(runtime.items())), tuple(sorted(constants.items(), key=str))


# Of the catalogue's kernels, which have to be one of its variants; any other kernel goes by its function's name.
NAMES = {_describe(v.kernel, v.signature, v.constexprs): v.name for v in catalogue.variants()}


@dataclass(frozen=True)
class Launched:
    """What was launched: the compiled code and its programs."""

    asm: dict[str, Any]
    programs: int  # that the launch asked for
    executed: int


class PtxDriver(fake_gpu.FakeDriver):
    """A device of a compute capability whose launches the machine executes.

    most_programs: of a launch that has more, only program 0 is executed. Its results are then incomplete, and so is
        whatever later launches make of them.
    """

    def __init__(self, capability: int, most_programs: int | None = None) -> None:
        super().__init__()
        self.capability, self.most_programs = capability, most_programs
        self.executed: Counter[str] = Counter()  # programs run, by the variant's name or the function's
        self.counts: list[tuple[str, launch.Counts]] = []
        self.launched: list[Launched] = []  # what each of `counts` is of
        self.kernels: set[Any] = set()
        self.inputs: list[Tensor] = []
        self.edit: Callable[[str], str] = lambda ptx: ptx  # what a test does to the PTX before it runs
        driver = self

        class Launcher:
            def __init__(self, source: Any, metadata: Any) -> None:
                self.source, self.metadata = source, metadata

            def __call__(self, x: int, y: int, z: int, stream: int, function: int, *rest: Any) -> None:
                driver.launch(self.source, self.metadata, (x, y, z), rest[4:])

        self.launcher_cls = Launcher

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", self.capability, 32)

    def launch(self, source: Any, metadata: Any, grid: tuple[int, int, int], arguments: tuple[Any, ...]) -> None:
        """Run a launch on the tensors' own memory."""
        compiled = next(k for k in source.fn.device_caches[0][0].values() if k.src is source)
        constants = {source.fn.arg_names[path[0]]: value for path, value in source.constants.items()}
        described = _describe(source.fn, source.signature, constants)
        name = NAMES[described] if source.fn in fake_gpu.KERNELS else source.fn.__name__
        self.kernels.add(source.fn)
        given = [v for v, kind in zip(arguments, source.signature.values(), strict=True) if kind != "constexpr"]

        tensors = [value for value in given if isinstance(value, Tensor)]
        storages = _storages([*tensors, *self.inputs])
        memory = GlobalMemory(list(storages.values()))
        bases = dict(zip(storages, memory.bases, strict=True))
        values = [_address(v, bases) if isinstance(v, Tensor) else v for v in given]
        programs = executed = grid[0] * grid[1] * grid[2]
        if self.most_programs is not None and programs > self.most_programs:
            executed = 1
        ptx = self.edit(compiled.asm["ptx"])
        counts = launch.run(ptx, metadata.shared, grid, values, memory, seed=0, most_programs=executed)
        memory.copy_back()
        self.executed[name] += executed
        self.counts.append((name, counts))
        self.launched.append(Launched(compiled.asm, programs, executed))

    @contextlib.contextmanager
    def reading(self, inputs: Iterable[Tensor]) -> Iterator[None]:
        """Launches may read all elements of these tensors: a launcher may pass on a view that does not show them."""
        self.inputs = list(inputs)
        try:
            yield
        finally:
            self.inputs = []


def _address(tensor: Tensor, bases: dict[int, int]) -> int:
    return bases[_key(tensor)] + tensor.storage_offset() * tensor.element_size()


def _key(tensor: Tensor) -> int:
    """What names a storage. Empty ones have no address of their own, and nothing in them to tell apart."""
    return tensor.untyped_storage().data_ptr()


def _storages(tensors: Iterable[Tensor]) -> dict[int, tuple[Array, Mask]]:
    """The bytes of the tensors' storages, and which of them are elements of one of the tensors."""
    found: dict[int, tuple[Array, Mask]] = {}
    for tensor in tensors:
        if _key(tensor) not in found:
            data = torch.empty(0, dtype=torch.uint8).set_(tensor.untyped_storage()).numpy()
            found[_key(tensor)] = data, np.zeros(len(data), bool)
        size, allowed = tensor.element_size(), found[_key(tensor)][1]
        if tensor.numel():
            start = allowed[tensor.storage_offset() * size :]
            strides = (*(stride * size for stride in tensor.stride()), 1)
            np.lib.stride_tricks.as_strided(start, (*tensor.shape, size), strides)[...] = True
    return found


@contextlib.contextmanager
def active(capability: int, most_programs: int | None = None, *, dispatched: bool = True) -> Iterator[PtxDriver]:
    """Triton has such a device, no kernel is loaded yet, and the public functions let Triton take CPU tensors.

    dispatched: see `fake_gpu.active`.
    """
    device = fake_gpu.active(PtxDriver(capability, most_programs), dispatched)
    with pytest.MonkeyPatch.context() as patch, device as driver:
        patch.setattr(backend, "_interpreted", lambda: True)
        try:
            yield driver
        finally:
            # A loaded kernel launches on the driver that loaded it: the next one must not find those of this one.
            for kernel in driver.kernels:
                kernel.device_caches.clear()
