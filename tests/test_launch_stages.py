"""What calls of all stages but select compile and launch, on a driver without a GPU."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the interpreter replaces the launcher", allow_module_level=True)

from fake_gpu import FakeDriver, num_compiled
from torch import Tensor

from tetris_kernels import ops
from tetris_kernels.kernels import acceptance, budgeting, catalogue, expectation, packing, scoring

CPU = torch.device("cpu")
FLOATS = (torch.float32, torch.bfloat16, torch.float16)
INTS = (torch.int32, torch.int64)
SIZES = [(1, 1), (3, 8), (16, 4), (33, 5), (64, 8)]
VOCABULARIES = (1, 16, 8193)

LOGITS = torch.zeros(1, 1, 1)
IDS = torch.zeros(1, 1, dtype=torch.int32)
LENS = IDS[0]

Call = tuple[Callable[[], object], int]  # and how many launches it is


def matrices(n: int, k: int, dtype: torch.dtype) -> list[Tensor]:
    """[n, k] of several strides and alignments."""
    wide = torch.zeros(2 * n, 3 * k + 1, dtype=dtype)
    return [wide[:n, :k].clone(), wide[::2, 1 : k + 1], wide.T[:k, :n].T, wide[:1, :1].expand(n, k)]


def rows_of_logits(n: int, k: int, vocabulary: int, dtype: torch.dtype) -> list[Tensor]:
    """[n, k, vocabulary] of several strides and alignments."""
    wide = torch.zeros(n, k, vocabulary + 1, dtype=dtype)
    return [wide[:, :, :-1].clone(), wide[:, :, 1:], torch.zeros(k, vocabulary, n, dtype=dtype).permute(2, 0, 1)]


def per_request(n: int, dtype: torch.dtype) -> list[Tensor | None]:
    wide = torch.zeros(2 * n + 1, dtype=dtype)
    return [None, wide[:n].clone(), wide[1 : n + 1], wide[:1].expand(n)]


def score_calls() -> Iterator[Call]:
    for (n, k), vocabulary, dtype in itertools.product(SIZES, VOCABULARIES, FLOATS):
        options = itertools.cycle(itertools.product(("token", "top", "collision"), per_request(n, torch.float32)))
        lens = itertools.cycle(t for dtype in INTS for t in per_request(n, dtype))
        for logits, ids in itertools.product(
            rows_of_logits(n, k, vocabulary, dtype), (t for dtype in INTS for t in matrices(n, k, dtype)[1:])
        ):
            kind, temperature = next(options)
            args = (logits, ids, kind, temperature, 0.7 if n % 2 else 16.0, next(lens), "triton")
            yield lambda args=args: ops.score(*args), 2


def select_calls() -> Iterator[Call]:
    for (n, k), vocabulary, dtype in itertools.product([*SIZES, (5, 20)], VOCABULARIES, FLOATS):
        logits, ids = rows_of_logits(n, k, vocabulary, dtype)[n % 3], matrices(n, k, INTS[k % 2])[n % 4]
        launches = 2 if scoring.fuses(n, k, vocabulary) else 3
        for budget, weights in itertools.product(
            (None, torch.zeros(1, dtype=torch.int64)), per_request(n, torch.float32)
        ):
            lens = per_request(n, INTS[n % 2])
            args = (logits, ids, "token", weights, 1.0, budget, n, lens[1], lens[2], lens[3], weights, "triton")
            yield lambda args=args: ops.select_from_logits(*args), launches


def expect_calls() -> Iterator[Call]:
    for (n, k), dtype in itertools.product([*SIZES, (0, 3), (3, 0), (5, 20)], FLOATS):
        preferences = [per_request(n, torch.int64)[i] for i in (1, 0, 3)] + [per_request(n, torch.float32)[n % 4]]
        for logprobs, integer, count in itertools.product(matrices(n, k, dtype), INTS, (0, 1, 2, 16, 17, 64)):
            budgets = torch.zeros(2 * count + 1, dtype=integer)[1::2]
            args = (logprobs, budgets, *(preferences if count % 2 else [None] * 4), "triton")
            yield lambda args=args: ops.expected_accepts(*args), int(count > 0)


def choose_calls() -> Iterator[Call]:
    requests = itertools.cycle((None, torch.zeros((), dtype=torch.int32), torch.zeros(1, dtype=torch.int64)))
    for (n, k), dtype in itertools.product([*SIZES, (0, 3), (3, 0)], FLOATS):
        for logprobs, integer, count in itertools.product(matrices(n, k, dtype), INTS, (1, 2, 16, 17, 64)):
            tokens, seconds = torch.zeros(2 * count, dtype=integer)[::2], torch.zeros(3 * count)[1::3]
            for host, argmax, factor in ((0, True, 1.0), (16, False, 1.02), (2**40, True, 3.0)):
                args = (logprobs, tokens, seconds, next(requests), host, argmax, factor, *per_request(n, integer)[1:])
                yield lambda args=args: ops.choose_budget(*args, None, "triton"), 2


def pack_calls() -> Iterator[Call]:
    capacities = itertools.cycle((0, 1, 16, 17, 1024, 5000))
    pads = itertools.cycle((0, 1, 16, 17, 2**31, 2**40))
    for (n, k), dtype in itertools.product([*SIZES, (0, 3), (3, 0), (40, 256)], INTS):
        contexts = [t for dtype in INTS for t in per_request(n, dtype)[1:]]
        draft_lens = itertools.cycle(t for dtype in INTS for t in per_request(n, dtype))
        for ids, context, anchors in itertools.product(matrices(n, k, dtype), contexts, per_request(n, dtype)[1:]):
            lens = per_request(n, torch.int32)[1 + n % 3]
            args = (lens, ids, anchors, context, next(capacities), next(draft_lens), next(pads), "triton")
            yield lambda args=args: ops.pack(*args), 1


def accept_calls() -> Iterator[Call]:
    temperatures = itertools.cycle((0.0, 0.7, 16.0))
    for (n, k), vocabulary, dtype in itertools.product(SIZES, VOCABULARIES, FLOATS):
        lens = torch.zeros(2 * n + 1, dtype=torch.int32)
        layout = (lens[1:], lens[: n + 1], lens[::2][:n], lens[1 : n + 1])
        drafts = [None, *(t for dtype in FLOATS for t in rows_of_logits(n, k, vocabulary, dtype))]
        options = itertools.cycle(itertools.product((True, False), per_request(n, torch.float32), INTS))
        for target, draft in itertools.product(rows_of_logits(2 * n, 1, vocabulary, dtype), drafts):
            coupled, temperature, ids = next(options)
            host = 1.0 if temperature is not None else next(temperatures)
            tensors = (target[:, 0], *layout, matrices(n, k, ids)[n % 4], torch.zeros(n, k + 1), draft, temperature)
            launches = 2 if host == 0 else 3 if draft is None else 5
            yield lambda args=(*tensors, host, coupled, "triton"): ops.accept(*args), launches


CALLS = {
    "score": score_calls,
    "select_from_logits": select_calls,
    "expected_accepts": expect_calls,
    "choose_budget": choose_calls,
    "pack": pack_calls,
    "accept": accept_calls,
}


@pytest.mark.parametrize("stage", CALLS)
def test_nothing_compiles_after_warmup(stage: str, driver: FakeDriver) -> None:
    count = catalogue.warmup(CPU, FLOATS, 64, 20)
    assert num_compiled() == count
    for call, launches in CALLS[stage]():
        before = len(driver.launches)
        call()
        assert len(driver.launches) - before == launches
    assert num_compiled() == count


def test_scores_of_other_dtypes_are_selected_in_float32(driver: FakeDriver) -> None:
    """Beyond the size that is selected from in the same launch."""
    count = catalogue.warmup(CPU, [torch.bfloat16], 300, 4)
    logits = torch.zeros(300, 4, 16, dtype=torch.bfloat16)
    for lens in (None, torch.zeros(300, dtype=torch.int32)):
        args = (logits, logits[:, :, 0].int(), "top", None, 1.0, None, 7, lens, None, None, None, "triton")
        ops.select_from_logits(*args)
    assert len(driver.launches) >= 6
    assert num_compiled() == count


MODULES = (scoring, expectation, budgeting, packing, acceptance)  # select has test_launch.py


def described(kernel: Any, signature: dict[str, Any], constants: dict[str, Any]) -> tuple[Any, ...]:
    runtime = {name: kind for name, kind in signature.items() if name not in constants}
    return kernel.__name__, tuple(sorted(runtime.items())), tuple(sorted(constants.items(), key=str))


@pytest.mark.parametrize(
    "module", [scoring, expectation, budgeting, packing, acceptance], ids=lambda module: module.__name__.split(".")[-1]
)
def test_warmup_compiles_what_the_catalogue_says(module: ModuleType, driver: FakeDriver) -> None:
    """The variants' signatures, which the compile tests use, are those of real launches."""
    assert module in catalogue.STAGES
    count = module.warmup(CPU, FLOATS, 4096, 256)
    compiled = set()
    for source, _, _ in driver.launches:
        constants = {source.fn.arg_names[path[0]]: value for path, value in source.constants.items()}
        compiled.add(described(source.fn, source.signature, constants))
        assert not any(source.attrs.values())  # no specialisation on alignment or divisibility
    assert compiled == {described(v.kernel, v.signature, v.constexprs) for v in module.variants()}
    assert count == len(compiled) == num_compiled()


def accept(target_logits: Tensor, draft_logits: Tensor | None) -> object:
    tensors = (target_logits, LENS, torch.zeros(2, dtype=torch.int32), LENS, LENS, IDS, torch.zeros(1, 2), draft_logits)
    return ops.accept(*tensors, None, 1.0, True, "triton")


def far(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """Strides beyond 32 bits."""
    return torch.zeros(1, dtype=dtype).as_strided(shape, [2 ** (33 - axis) for axis in range(len(shape))])


FAR_CALLS: dict[str, Callable[[], object]] = {
    "score, logits": lambda: ops.score(far((1, 1, 1), torch.float32), IDS, "token", None, 1.0, None, "triton"),
    "score, ids": lambda: ops.score(LOGITS, far((1, 1), torch.int32), "token", None, 1.0, None, "triton"),
    "expected_accepts": lambda: ops.expected_accepts(
        far((1, 1), torch.float32), LENS, None, None, None, None, "triton"
    ),
    "pack": lambda: ops.pack(LENS, far((1, 1), torch.int32), LENS, LENS, 4, None, 0, "triton"),
    "accept, target": lambda: accept(far((1, 1), torch.float32), None),
    "accept, drafts": lambda: accept(LOGITS[0], far((1, 1, 1), torch.float32)),
}


@pytest.mark.parametrize("name", FAR_CALLS)
def test_strides_beyond_32_bits_reach_the_launcher_whole(name: str, driver: FakeDriver) -> None:
    FAR_CALLS[name]()
    passed = {argument for _, _, arguments in driver.launches for argument in arguments if type(argument) is int}
    assert {2**33, 2**32} <= passed
