"""No stage makes the host wait for the device: a GPU would raise (test_gpu*.py), this is seen without one.

The code that would run on a GPU runs on CPU tensors, and whatever would wait there raises: a value or a shape that the
host reads, and what Python makes of numbers on the device by way of the host.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from stage_calls import CALLS
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from tetris_kernels import Calibration, choose_budget, deadline_preferences, select, update_waited, waiting_weights
from tetris_kernels.reference import selection, selection_numpy

aten = torch.ops.aten
VALUES = (aten._local_scalar_dense, aten.equal, aten.is_nonzero)
SHAPES = (aten.nonzero, aten.masked_select, aten._unique2, aten.unique_consecutive, aten.bincount)
INDEXING = (aten.index, aten.index_put, aten.index_put_)
# Python numbers become a tensor in the host's memory first.
FROM_HOST = (torch.tensor, torch.as_tensor, torch.from_numpy, torch.scalar_tensor)
TO_HOST = (Tensor.cpu, Tensor.numpy, Tensor.tolist)


class _Operators(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        packet = func.overloadpacket
        by_mask = packet in INDEXING and any(i is not None and i.dtype == torch.bool for i in args[1])
        if by_mask or packet in VALUES + SHAPES:
            raise AssertionError(f"{func} waits for the device")
        return func(*args, **kwargs or {})


class _Calls(TorchFunctionMode):
    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        by_index = func is Tensor.__setitem__ and not isinstance(args[2], Tensor)
        if by_index or func in FROM_HOST + TO_HOST:
            raise AssertionError(f"{func.__name__} waits for the device")
        return func(*args, **kwargs or {})


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> Callable[[], ExitStack]:
    """A context in which what waits raises, and `select` does what it does on other devices than the CPU."""
    monkeypatch.setattr(selection_numpy, "select", selection.select_on_device)

    def entered() -> ExitStack:
        stack = ExitStack()
        for mode in (_Operators(), _Calls()):
            stack.enter_context(mode)
        return stack

    return entered


@pytest.mark.parametrize("name", CALLS)
def test_stages(name: str, no_waiting: Callable[[], ExitStack]) -> None:
    call, tensors = CALLS[name]
    given = tensors()
    with no_waiting():
        call(given, backend="torch")


@pytest.mark.parametrize("on_device", [False, True])
def test_select_with_masks_and_indices(on_device: bool, no_waiting: Callable[[], ExitStack]) -> None:
    logprobs, budget = -torch.rand(5, 3), torch.tensor(7) if on_device else 7
    with no_waiting():
        picked = select(logprobs, budget, backend="torch")
        picked.mask(3)
        picked.indices(9)


def test_the_search_for_the_best_of_all_budgets(no_waiting: Callable[[], ExitStack]) -> None:
    _, tensors = CALLS["choose_budget"]
    given = tensors()
    with no_waiting():
        choose_budget(**given, rule="argmax", greedy=True, backend="torch")


def test_calibration_learns_and_fits(no_waiting: Callable[[], ExitStack]) -> None:
    calibration = Calibration(3, warmup=1, refit_every=1)
    lens = torch.tensor([0, 1, 2, 3, 3], dtype=torch.int32)
    counts, coupled = lens // 2 + 1, torch.tensor([True, False, False, True, False])
    scores = -torch.rand(5, 3)
    with no_waiting():
        for draft_lens in (None, lens):
            calibration.update(scores, lens, counts, coupled, kind="token", draft_lens=draft_lens)
        calibration(scores, kind="token")
        calibration.state_dict()


def test_preferences(no_waiting: Callable[[], ExitStack]) -> None:
    ints, floats = torch.ones(5, dtype=torch.int32), torch.ones(5)
    with no_waiting():
        deadline_preferences(ints, floats, floats, step_seconds=0.1, num_drafts=4)
        waiting_weights(update_waited(ints, ints, None), nats_per_step=1.0)


def by_index(x: Tensor) -> None:
    x[0] = 1


WAITING: dict[str, Callable[[Tensor], Any]] = {
    "a number by index": by_index,
    "to the host": lambda x: x.cpu(),
    "to a list": lambda x: x.tolist(),
    "to the device": lambda x: torch.tensor([1.0], device=x.device),
    "a value": lambda x: x.sum().item(),
    "a number": lambda x: int(x[0]),
    "a comparison": lambda x: bool((x > 0).all()),
    "a shape": lambda x: x.nonzero(),
    "a mask": lambda x: x[x > 0],
}


@pytest.mark.parametrize("name", WAITING)
def test_what_waits_is_seen(name: str, no_waiting: Callable[[], ExitStack]) -> None:
    x = torch.ones(3)
    with no_waiting(), pytest.raises(AssertionError, match="waits for the device"):
        WAITING[name](x)


def test_what_does_not_wait_passes(no_waiting: Callable[[], ExitStack]) -> None:
    x = torch.ones(3)
    with no_waiting():
        x[:1].fill_(1)
        x[1] = x[0]
        torch.where(x > 0, x, 0.25).clamp_(max=2.0)
