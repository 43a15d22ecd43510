"""Preferences for deadlines and for those that have waited, against loops; what they refuse."""

from __future__ import annotations

import inspect
import itertools
import math
import random
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
import oracle_preferences as oracle
import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from tetris_kernels import Preferences, deadline_preferences, select, update_waited, waiting_weights

NAN, INF = math.nan, math.inf
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
TOKENS = [0.0, -0.0, 1.0, -5.0, 0.5, 7.0, 1e9, NAN, INF, -INF]
SECONDS = [0.0, -0.0, -3.0, 1e-42, 0.1, 1.0, 3.5, 1e30, NAN, INF, -INF]
RATES = [0.0, -0.0, -0.2, 0.3, 0.5, 0.7, 0.9999, 1.0, 1.5, 1e-42, NAN, INF, -INF]
Row = tuple[float, float, float]  # tokens left, seconds left, acceptance rate


def in_float32(rows: Iterable[Row]) -> list[Row]:
    return [tuple(np.float32(row).tolist()) for row in rows]


EDGES = in_float32(itertools.product(TOKENS, SECONDS, RATES))


def some_rows(seed: int, num_requests: int = 200) -> list[Row]:
    """Needs of about one to five tokens in a step of 1/32 s."""
    rng = random.Random(seed)
    return in_float32((rng.randint(0, 300), rng.uniform(0.1, 9), rng.random() ** 0.5) for _ in range(num_requests))


def columns(rows: list[Row], device: str = "cpu") -> list[Tensor]:
    return list(torch.tensor(rows, dtype=torch.float32, device=device).reshape(-1, 3).T)


def check(rows: list[Row], got: Preferences, step: float, k: int, far: str, cap: float) -> None:
    expected = [oracle.deadline(*row, step, k, far, cap) for row in rows]
    assert (got.min_lens.dtype, got.log_weights.dtype) == (torch.int32, torch.float32)
    assert got.min_lens.tolist() == [lens for lens, _ in expected]
    # A float64 logarithm, rounded to float32.
    np.testing.assert_allclose(got.log_weights.cpu(), [weight for _, weight in expected], rtol=2**-23, atol=1e-15)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("far", ["none", "all"])
@pytest.mark.parametrize("num_drafts", [0, 1, 4, 33])
def test_every_edge_means_what_the_oracle_says(num_drafts, far, device):
    got = deadline_preferences(*columns(EDGES, device), step_seconds=0.5, num_drafts=num_drafts, out_of_reach=far)
    check(EDGES, got, 0.5, num_drafts, far, math.log(4))


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("cap", [0, 0.25, 1000.0])
@pytest.mark.parametrize(("num_drafts", "far"), [(8, "none"), (3, "all"), (256, "none"), (256, "all")])
def test_random_needs(num_drafts, far, cap, device):
    rows = some_rows(num_drafts)
    options = {"num_drafts": num_drafts, "out_of_reach": far, "max_log_weight": cap}
    got = deadline_preferences(*columns(rows, device), step_seconds=1 / 32, **options)
    check(rows, got, 1 / 32, num_drafts, far, cap)
    if num_drafts == 8:
        assert len(set(got.min_lens.tolist())) == 9, "every floor is met with"


@pytest.mark.parametrize(
    ("need", "rate", "drafts"),
    [(1.0, 0.7, 0), (1.7, 0.7, 1), (2.19, 0.7, 2), (1.1, 0.1, 1), (1.5, 0.5, 1), (1.75, 0.5, 2), (5.0, 1.0, 4)]
    + [(1.0001, 0.7, 1), (1.7001, 0.7, 2), (5.001, 1.0, 0), (1.01, 0.0, 0), (0.3, 0.0, 0)],
)
def test_needs_as_people_write_them(need, rate, drafts):
    """Which float32 does not hold exactly; the last rows are out of reach."""
    got = deadline_preferences(*columns([(need, 1.0, rate)]), step_seconds=1, num_drafts=4)
    assert got.min_lens.tolist() == [drafts]


@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
@pytest.mark.parametrize("tokens", [0, -1, 50, 2**31 - 1, -(2**31)])
def test_integer_tokens(dtype, tokens):
    _, seconds, rate = columns([(0, 1.0, 0.5)])
    got = deadline_preferences(
        torch.tensor([tokens], dtype=dtype), seconds, rate, step_seconds=0.03, num_drafts=4, out_of_reach="all"
    )
    check([(tokens, 1.0, 0.5)], got, 0.03, 4, "all", math.log(4))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("step", [0.03125, 0.0, -1.0, NAN, INF, -INF])
def test_step_seconds_on_the_device(step, shape):
    got = deadline_preferences(*columns(EDGES), step_seconds=torch.full(shape, step), num_drafts=5)
    check(EDGES, got, step, 5, "none", math.log(4))


def test_no_requests():
    got = deadline_preferences(*columns([]), step_seconds=1, num_drafts=3)
    assert got.min_lens.shape == got.log_weights.shape == (0,)
    assert update_waited(torch.zeros(0, dtype=torch.int64), torch.zeros(0, dtype=torch.int32)).shape == (0,)
    assert waiting_weights(torch.zeros(0, dtype=torch.int32), nats_per_step=1).shape == (0,)


def test_strides_and_nothing_changed():
    rows = some_rows(1, 40)
    packed = torch.tensor(rows)
    before = packed.clone()
    got = deadline_preferences(*packed[::2].T, step_seconds=1 / 32, num_drafts=6)
    check(rows[::2], got, 1 / 32, 6, "none", math.log(4))
    one = deadline_preferences(*packed[:1].expand(5, 3).T, step_seconds=1 / 32, num_drafts=6)
    check(rows[:1] * 5, one, 1 / 32, 6, "none", math.log(4))
    for output in (*got, *one):
        output.fill_(77)
    assert torch.equal(packed, before)


def test_a_request_is_judged_by_itself():
    rows = some_rows(2, 30)
    together = deadline_preferences(*columns(rows), step_seconds=1 / 32, num_drafts=6)
    alone = [deadline_preferences(*columns([row]), step_seconds=1 / 32, num_drafts=6) for row in rows]
    assert together.min_lens.tolist() == [p.min_lens[0] for p in alone]
    assert together.log_weights.tolist() == [p.log_weights[0] for p in alone]


def test_no_preference_sees_this_steps_drafts():
    """Or sampled output is biased: what they are given, all of it, is known before a draft is made."""
    given = {name for f in (deadline_preferences, update_waited, waiting_weights) for name in parameters(f)}
    clocks = {"tokens_left", "seconds_left", "step_seconds"}
    earlier = {"acceptance_rate", "waited", "lens", "draft_lens"}
    choices = {"num_drafts", "out_of_reach", "max_log_weight", "nats_per_step"}
    assert given == clocks | earlier | choices


def parameters(function: Any) -> list[str]:
    return list(inspect.signature(function).parameters)


COUNTS = [0, 1, 7, -1, 2**31 - 2, 2**31 - 1, -(2**31)]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64])
def test_waiting_is_counted(dtype, device):
    large = [2**31, 2**40, 2**63 - 1, -(2**63)] if dtype is torch.int64 else []
    rows = list(itertools.product(COUNTS + large, [0, 1, -1, 256], [0, 1, -1, 9]))
    before, lens, draft_lens = torch.tensor(rows, dtype=dtype, device=device).T
    got, all_have_some = update_waited(before, lens, draft_lens), update_waited(before, lens)
    assert got.dtype == all_have_some.dtype == torch.int32
    assert got.tolist() == [oracle.waited(*row) for row in rows]
    assert all_have_some.tolist() == [oracle.waited(b, n, None) for b, n, _ in rows]
    assert before.tolist() == [row[0] for row in rows]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("nats", [0, 0.1, math.log(2), 1, 500.0])
def test_weights_grow_with_waiting(nats, device):
    waited = [0, 1, 2, 3, 17, 10**6, 2**31 - 1, -1, -(2**31)]
    got = waiting_weights(torch.tensor(waited, dtype=torch.int32, device=device), nats_per_step=nats)
    assert got.dtype == torch.float32
    assert got.tolist() == [float(np.float32(max(n, 0)) * np.float32(nats)) for n in waited]


def a_step(
    logprobs: Tensor, tokens: Tensor, seconds: Tensor, rate: Tensor, step: Tensor, waited: Tensor
) -> tuple[Tensor, Tensor]:
    wanted = deadline_preferences(tokens, seconds, rate, step_seconds=step, num_drafts=logprobs.shape[1])
    weights = wanted.log_weights + waiting_weights(waited, nats_per_step=0.125)
    lens = select(logprobs, 6, min_lens=wanted.min_lens, log_weights=weights).lens
    return lens, update_waited(waited, lens)


def of_a_step(num_requests: int, seed: int) -> list[Tensor]:
    logprobs = -torch.rand(num_requests, 4, generator=torch.Generator().manual_seed(seed))
    waited = torch.arange(num_requests, dtype=torch.int32)
    return [logprobs, *columns(some_rows(seed, num_requests)), torch.tensor(1 / 32), waited]


def test_compiled_as_one_graph():
    """And the same one for other values and batch sizes."""
    graphs = []

    def backend(graph: torch.fx.GraphModule, _: list[Tensor]) -> Any:
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(a_step, fullgraph=True, dynamic=True, backend=backend)
    for num_requests, seed in [(5, 0), (5, 1), (9, 2), (30, 3)]:
        arguments = of_a_step(num_requests, seed)
        for got, expected in zip(compiled(*arguments), a_step(*arguments), strict=True):
            assert got.dtype == expected.dtype and torch.equal(got, expected)
    assert len(graphs) == 1


def test_fake_tensors_cross_without_a_look_at_their_values():
    """A fake tensor has none: what reads one on the host raises."""
    real = of_a_step(5, 0)
    with FakeTensorMode():
        arguments = [torch.empty(x.shape, dtype=x.dtype, device="cuda") for x in real]
        lens, waited = a_step(*arguments)
        with pytest.raises(DataDependentOutputException):
            lens.sum().item()
    assert (lens.shape, waited.shape, lens.device.type) == ((5,), (5,), "cuda")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA or ROCm GPU here")
def test_no_synchronisation():
    arguments = [x.cuda() for x in of_a_step(64, 0)]
    a_step(*arguments)
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        a_step(*arguments)
    finally:
        torch.cuda.set_sync_debug_mode("default")


FLOATS, INTS = torch.ones(3), torch.ones(3, dtype=torch.int32)
DEADLINE = {"tokens_left": INTS, "seconds_left": FLOATS, "acceptance_rate": FLOATS, "step_seconds": 1, "num_drafts": 4}
UPDATE = {"waited": INTS, "lens": INTS, "draft_lens": None}
WEIGHTS = {"waited": INTS, "nats_per_step": 1.0}


@pytest.mark.parametrize(
    ("function", "arguments", "name", "value", "error", "text"),
    [
        (deadline_preferences, DEADLINE, name, value, error, text)
        for name, value, error, text in [
            ("tokens_left", [1], TypeError, "expected a torch.Tensor, got list"),
            ("tokens_left", FLOATS.double(), TypeError, "int32 or torch.int64 or torch.float32, got torch.float64"),
            ("tokens_left", FLOATS[None], ValueError, "expected 1 dimension [requests], got shape [1, 3]"),
            ("seconds_left", None, TypeError, "expected a torch.Tensor, got NoneType"),
            ("seconds_left", INTS, TypeError, "expected dtype torch.float32, got torch.int32"),
            ("seconds_left", FLOATS[:2], ValueError, "expected shape [3], one value per request, got [2]"),
            ("seconds_left", FLOATS.to("meta"), ValueError, "expected device cpu as tokens_left, got meta"),
            ("acceptance_rate", 0.5, TypeError, "expected a torch.Tensor, got float"),
            ("acceptance_rate", FLOATS.half(), TypeError, "expected dtype torch.float32, got torch.float16"),
            ("acceptance_rate", FLOATS[0], ValueError, "expected shape [3], one value per request, got []"),
            ("step_seconds", 0, ValueError, "expected a finite number above 0, got 0.0"),
            ("step_seconds", -0.5, ValueError, "expected a finite number above 0, got -0.5"),
            ("step_seconds", NAN, ValueError, "expected a finite number above 0, got nan"),
            ("step_seconds", INF, ValueError, "expected a finite number above 0, got inf"),
            ("step_seconds", True, TypeError, "expected a number, got bool"),
            ("step_seconds", "1", TypeError, "expected a number, got str"),
            ("step_seconds", None, TypeError, "expected a number, got NoneType"),
            ("step_seconds", FLOATS, ValueError, "expected a tensor of one element, got shape [3]"),
            ("step_seconds", INTS[:1], TypeError, "expected dtype torch.float32, got torch.int32"),
            ("step_seconds", FLOATS[:1].to("meta"), ValueError, "expected device cpu as tokens_left, got meta"),
            ("num_drafts", -1, ValueError, "expected 0 or more, got -1"),
            ("num_drafts", 257, ValueError, "expected at most 256, got 257"),
            ("num_drafts", 4.0, TypeError, "expected an integer, got float"),
            ("out_of_reach", "some", ValueError, "expected one of 'none', 'all', got 'some'"),
            ("out_of_reach", None, ValueError, "expected one of 'none', 'all', got None"),
            ("max_log_weight", -1.0, ValueError, "expected a finite number from 0 on, got -1.0"),
            ("max_log_weight", NAN, ValueError, "expected a finite number from 0 on, got nan"),
            ("max_log_weight", INF, ValueError, "expected a finite number from 0 on, got inf"),
            ("max_log_weight", FLOATS, TypeError, "expected a number, got Tensor"),
        ]
    ]
    + [
        (update_waited, UPDATE, "waited", FLOATS, TypeError, "expected dtype torch.int32 or torch.int64, got"),
        (update_waited, UPDATE, "waited", INTS[0], ValueError, "expected 1 dimension [requests], got shape []"),
        (update_waited, UPDATE, "lens", None, TypeError, "expected a torch.Tensor, got NoneType"),
        (update_waited, UPDATE, "lens", INTS > 0, TypeError, "got torch.bool"),
        (update_waited, UPDATE, "lens", INTS[:2], ValueError, "expected shape [3], one value per request, got [2]"),
        (update_waited, UPDATE, "draft_lens", INTS[:2], ValueError, "expected shape [3], one value per request"),
        (update_waited, UPDATE, "draft_lens", INTS.to("meta"), ValueError, "expected device cpu as waited, got meta"),
        (waiting_weights, WEIGHTS, "waited", FLOATS, TypeError, "expected dtype torch.int32 or torch.int64, got"),
        (waiting_weights, WEIGHTS, "waited", INTS[None], ValueError, "expected 1 dimension [requests], got shape"),
        (waiting_weights, WEIGHTS, "nats_per_step", -1, ValueError, "expected a finite number from 0 on, got -1.0"),
        (waiting_weights, WEIGHTS, "nats_per_step", INF, ValueError, "expected a finite number from 0 on, got inf"),
        (waiting_weights, WEIGHTS, "nats_per_step", FLOATS, TypeError, "expected a number, got Tensor"),
    ],
)
def test_bad_input(function, arguments, name, value, error, text):
    with pytest.raises(error, match=rf"^{name}: .*{re.escape(text)}") as caught:
        function(**arguments | {name: value})
    assert caught.type is error
