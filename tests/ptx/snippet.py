"""PTX of a few instructions as a whole module, for the machine's own tests."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from ptx import launch
from ptx.types import UNSIGNED, Array

_MODULE = """.version 9.0
.target sm_90a
.address_size 64
.extern .shared .align 16 .b8 global_smem[];
.visible .entry snippet(
{parameters}
)
.reqntid {threads}
{{
\t.reg .pred \t%p<100>;
\t.reg .b16 \t%rs<100>;
\t.reg .b32 \t%r<100>;
\t.reg .b64 \t%rd<100>;
{body}
\tret;
}}
"""
PREFIXES = {"pred": "p", "b16": "rs", "b32": "r", "b64": "rd"}


def module(body: str, pointers: int = 0, threads: int = 32) -> str:
    """The instructions, where %rd90 to %rd9x hold the pointers and %r90 the thread."""
    parameters = ",\n".join(f"\t.param .u64 .ptr .global .align 1 snippet_param_{i}" for i in range(pointers))
    loads = [f"ld.param.b64 %rd{90 + i}, [snippet_param_{i}];" for i in range(pointers)]
    lines = ["mov.u32 %r90, %tid.x;", *loads, *(line.strip() for line in body.strip().splitlines())]
    return _MODULE.format(parameters=parameters, threads=threads, body="\n".join(f"\t{line}" for line in lines))


def run(
    body: str, *arrays: Array, threads: int = 32, shared: int = 0, grid: Sequence[int] = (1,), seed: int = 0
) -> launch.Counts:
    """Run the instructions, with a pointer to each array."""
    text = module(body, len(arrays), threads)
    compiled = SimpleNamespace(asm={"ptx": text}, metadata=SimpleNamespace(shared=shared))
    return launch.execute(compiled, grid, arrays, seed=seed)


def _move(kind: str, register: int, pointer: int, is_load: bool) -> list[str]:
    """Between a thread's register and its element of an array; a predicate's is a word."""
    width = 4 if kind == "pred" else int(kind[1:]) // 8
    address = f"mul.wide.u32 %rd80, %r90, {width};", f"add.s64 %rd80, %rd{pointer}, %rd80;"
    if kind != "pred":
        name = f"%{PREFIXES[kind]}{register}"
        return [*address, f"ld.global.{kind} {name}, [%rd80];" if is_load else f"st.global.{kind} [%rd80], {name};"]
    if is_load:
        return [*address, "ld.global.b32 %r80, [%rd80];", f"setp.ne.b32 %p{register}, %r80, 0;"]
    return [*address, f"selp.b32 %r80, 1, 0, %p{register};", "st.global.b32 [%rd80], %r80;"]


def evaluate(spelling: str, kinds: Sequence[str], rows: Sequence[Sequence[int]]) -> list[int]:
    """What the instruction gives for each row of operands: bits, of up to 32 rows.

    kinds: the register types of the operands and, last, of the result.
    """
    columns = [*zip(*rows, strict=True)]
    arrays: list[Any] = []
    for kind, values in zip(kinds, [*columns, (0,) * len(rows)], strict=True):
        width = 32 if kind == "pred" else int(kind[1:])
        padded = [value & ((1 << width) - 1) for value in [*values, *values[:1] * (32 - len(values))]]
        arrays.append(np.array(padded, UNSIGNED[width]))
    lines = [line for i, kind in enumerate(kinds[:-1]) for line in _move(kind, i, 90 + i, True)]
    names = [f"%{PREFIXES[kind]}{i}" for i, kind in enumerate(kinds)]
    lines += [f"{spelling} {', '.join([names[-1], *names[:-1]])};"]
    lines += _move(kinds[-1], len(kinds) - 1, 90 + len(kinds) - 1, False)
    run("\n".join(lines), *arrays)
    return [int(value) for value in arrays[-1][: len(rows)]]
