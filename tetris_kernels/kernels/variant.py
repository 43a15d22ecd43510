"""A kernel together with everything that decides its machine code."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any


@dataclass(frozen=True)
class Variant:
    """One compilation of a kernel: what warmup compiles, and what the compile tests go through."""

    name: str
    kernel: Any  # a triton.JITFunction
    signature: dict[str, Any]  # runtime parameters in order: Triton types, tuples of them, or "constexpr" for None
    constexprs: dict[str, Any]
    num_warps: int
    when: str  # what it serves
    loaded: dict[int, Any] = field(default_factory=dict, compare=False, repr=False)  # the compiled kernel, by device

    @cached_property
    def sizes(self) -> dict[str, Any]:
        """The compile-time parameters that are not absent pointers: a kernel's last ones."""
        return {name: value for name, value in self.constexprs.items() if value is not None}

    @property
    def options(self) -> dict[str, Any]:
        """Launch options. Results do not depend on fusion: naming it keeps Triton's changing default out."""
        return {"num_warps": self.num_warps, "enable_fp_fusion": True}
