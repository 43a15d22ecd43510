"""PTX's types as numpy's, and constants of them.

float16 and bfloat16 are their bits: only conversions look inside them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ptx.faults import Unsupported

Array = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]

UNSIGNED = {width: np.dtype(f"u{width // 8}") for width in (8, 16, 32, 64)}
DTYPES = (
    {"pred": np.dtype(np.bool_), "f32": np.dtype(np.float32)}
    | {f"{kind}{width}": UNSIGNED[width] for kind in "bu" for width in UNSIGNED}
    | {f"s{width}": np.dtype(f"i{width // 8}") for width in UNSIGNED}
    | {"f16": UNSIGNED[16], "bf16": UNSIGNED[16], "f32x2": UNSIGNED[64]}
)


def bits_of(values: Array) -> Array:
    """The same bits as unsigned integers; predicates as they are."""
    return values if values.dtype == np.bool_ else values.view(UNSIGNED[values.dtype.itemsize * 8])


def constant(text: str, dtype: np.dtype[Any]) -> Any:
    """A literal as a scalar of this type; its bits, where the type is an integer's and the literal a float's."""
    width = dtype.itemsize * 8
    if text[:2] in ("0f", "0F"):
        if width != 32:
            raise Unsupported(f"the constant {text} has 32 bits, not {width}")
        return np.uint32(int(text[2:], 16)).view(dtype)
    if dtype.kind == "f":
        raise Unsupported(f"the constant {text} is not a float's bits")
    try:
        value = int(text.removesuffix("U"), 0)
    except ValueError:
        raise Unsupported(f"the constant {text}") from None
    if dtype == np.bool_:
        if value not in (-1, 0, 1):
            raise Unsupported(f"the predicate {text}")
        return np.bool_(value)
    if not -(1 << (width - 1)) <= value < 1 << width:
        raise Unsupported(f"the constant {text} does not fit in {width} bits")
    return UNSIGNED[width].type(value & ((1 << width) - 1)).view(dtype)
