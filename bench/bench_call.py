"""What one call of each stage costs on the host: `make bench`.

CPU tensors: the whole call. The Triton path: all that Python does up to the driver, on a driver that launches
nothing (tests/fake_gpu.py), so what a GPU adds is not in it. Rows are measured in turn, one thread.
"""

from __future__ import annotations

import platform
import statistics
import time
import unittest.mock
from collections.abc import Callable

import kernel_calls
import torch
import triton
from fake_gpu import FakeDriver

import tetris_kernels
from tetris_kernels import (
    Calibration,
    CostTable,
    deadline_preferences,
    ops,
    plan_budget,
    select,
    update_waited,
    waiting_weights,
)
from tetris_kernels.backend import triton_kernels

ROUNDS, CALLS = 40, 50
SHAPES = [(8, 4), (64, 8), (256, 8), (1024, 16), (4096, 32)]


def raw(*args: object) -> object:
    return tetris_kernels.ops.select(*args)


def through_operator(*args: object) -> object:
    return torch.ops.tetris_kernels.select(*args)


def microseconds(rows: dict[str, Callable[[], object]], calls: int = CALLS) -> dict[str, float]:
    """Median over rounds of the mean time of a call; the rows take turns, so that noise hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in rows}
    for call in rows.values():
        call()
    for _ in range(ROUNDS):
        for name, call in rows.items():
            start = time.perf_counter()
            for _ in range(calls):
                call()
            times[name].append((time.perf_counter() - start) / calls)
    return {name: statistics.median(values) * 1e6 for name, values in times.items()}


def on_the_cpu(num_requests: int, num_drafts: int) -> dict[str, Callable[[], object]]:
    logprobs = -torch.rand(num_requests, num_drafts, generator=torch.Generator().manual_seed(0))
    budget, all_drafts = logprobs.numel() // 2, logprobs.numel()
    args = (logprobs, None, budget, None, None, None, None, "torch")
    return {
        "select": lambda: select(logprobs, budget),
        "no checks": lambda: raw(*args),
        "operator": lambda: through_operator(*args),
        "covering": lambda: select(logprobs, all_drafts),
    }


def up_to_the_launch() -> dict[str, Callable[[], object]]:
    from tetris_kernels.kernels import selection

    triton.runtime.driver.set_active(FakeDriver())
    logprobs, lens = torch.zeros(64, 8), torch.zeros(64, dtype=torch.int64)
    budget = torch.tensor(100)
    return {
        "host budget": lambda: selection.select(logprobs, None, 100, None, None, None, None),
        "device budget": lambda: selection.select(logprobs, budget, 0, None, None, None, None),
        "all optional": lambda: selection.select(logprobs, budget, 0, lens, lens, lens, logprobs[:, 0]),
    }


def budgets(backend: str, num_requests: int, num_drafts: int) -> dict[str, Callable[[], object]]:
    """What to expect of 16 budgets, and a choice between as many ends of a convex cost."""
    arguments = kernel_calls.choice(num_requests, num_drafts)
    logprobs, tokens, seconds = arguments.values()
    rest = (None, None, None, None, backend)
    return {
        "expected_accepts": lambda: ops.expected_accepts(logprobs, tokens, *rest),
        "choose_budget": lambda: ops.choose_budget(logprobs, tokens, seconds, None, num_requests, False, 1.0, *rest),
    }


def other_stages(backend: str, num_requests: int, num_drafts: int, vocabulary: int) -> dict[str, Callable[[], object]]:
    """The other stages, on bfloat16 logits, half of the drafts selected."""
    generator = torch.Generator().manual_seed(0)
    draft_logits = torch.randn(num_requests, num_drafts, vocabulary, generator=generator).bfloat16()
    ids = draft_logits.float().argmax(-1)
    anchors, lens = ids[:, 0].contiguous(), torch.full((num_requests,), num_drafts // 2, dtype=torch.int32)
    capacity = num_requests * (num_drafts // 2 + 1)
    target_logits = torch.randn(capacity, vocabulary, generator=generator).bfloat16()
    packed = ops.pack(lens, ids, anchors, anchors, capacity, None, 0, "torch")
    layout = (packed[2], packed[3], packed[4], packed[5], ids, torch.rand(num_requests, num_drafts + 1))
    budget = ids.numel() // 2
    preferences = (None, None, None, None)
    return {
        "score": lambda: ops.score(draft_logits, ids, "token", None, 1.0, None, backend),
        "select_from_logits": lambda: ops.select_from_logits(
            draft_logits, ids, "token", None, 1.0, None, budget, *preferences, backend
        ),
        "pack": lambda: ops.pack(lens, ids, anchors, anchors, capacity, None, 0, backend),
        "accept greedy": lambda: ops.accept(target_logits, *layout, None, None, 0.0, True, backend),
        "one-hot": lambda: ops.accept(target_logits, *layout, None, None, 1.0, True, backend),
        "full": lambda: ops.accept(target_logits, *layout, draft_logits, None, 1.0, True, backend),
    }


def between_steps(num_requests: int, num_drafts: int) -> dict[str, Callable[[], object]]:
    """What is done beside the stages: learning, planning, preferences."""
    generator = torch.Generator().manual_seed(0)
    scores = -torch.rand(num_requests, num_drafts, generator=generator)
    lens = torch.full((num_requests,), num_drafts // 2, dtype=torch.int32)
    counts = torch.randint(1, num_drafts // 2 + 2, (num_requests,), generator=generator, dtype=torch.int32)
    coupled = torch.zeros(num_requests, dtype=torch.bool)
    outcome = (scores, lens, counts, coupled)
    seldom, always = (Calibration(num_drafts, refit_every=every) for every in (10**9, 1))
    ends = tuple(num_requests * n for n in range(1, num_drafts + 2))
    costs = CostTable({}, ends, tuple(1.0 + n for n in range(len(ends))), (0.0, 1.0))
    budgets = costs.budgets(num_requests, num_requests * num_drafts)
    promised = [0.5 * budget for budget in budgets]
    left, seconds, rates = torch.full((num_requests,), 50), torch.ones(num_requests), torch.rand(num_requests)
    return {
        "calibrate": lambda: seldom(scores, kind="token"),
        "learn": lambda: seldom.update(*outcome, kind="token"),
        "and fit": lambda: always.update(*outcome, kind="token"),
        "plan_budget": lambda: plan_budget(promised, budgets, costs, num_requests, 1),
        "deadlines": lambda: deadline_preferences(left, seconds, rates, step_seconds=0.03, num_drafts=num_drafts),
        "waiting": lambda: waiting_weights(update_waited(lens, lens), nats_per_step=0.1),
    }


def show(row: dict[str, float], first: str = "  ") -> None:
    print(first + "".join(f"{name} {value:8.1f}   " for name, value in row.items()))


def main() -> None:
    torch.set_num_threads(1)
    print(
        f"tetris_kernels {tetris_kernels.__version__}, torch {torch.__version__}, triton {triton.__version__}, "
        f"Python {platform.python_version()}, {platform.machine()}, one thread"
    )
    print("\nselect on CPU tensors, float32, budget 50 %, microseconds a call:")
    for shape in SHAPES:
        show(microseconds(on_the_cpu(*shape)), f"  {shape[0]:>5} x {shape[1]:<3}")
    print("\nexpected_accepts and choose_budget on CPU tensors, 16 budgets, microseconds a call:")
    for shape in SHAPES:
        show(microseconds(budgets("torch", *shape)), f"  {shape[0]:>5} x {shape[1]:<3}")
    print("\nBetween steps, on CPU tensors, microseconds a call:")
    for shape in SHAPES[:3]:
        show(microseconds(between_steps(*shape), calls=5), f"  {shape[0]:>5} x {shape[1]:<3}")
    print("\nThe other stages on CPU tensors, 16 x 4, 32,000 tokens, bfloat16, microseconds a call:")
    show(microseconds(other_stages("torch", 16, 4, 32000), calls=1))
    print("\nTriton path up to the launch, 64 x 8, no GPU and nothing launched, microseconds a call:")
    show(microseconds(up_to_the_launch()))
    # The kernels themselves: `auto` would take torch for tensors that are on the CPU.
    with unittest.mock.patch.object(ops, "implementation", lambda stage, *_: triton_kernels(stage)):
        show(microseconds(budgets("triton", 64, 8)))
        show(microseconds(other_stages("triton", 64, 8, 32000)))


if __name__ == "__main__":
    main()
