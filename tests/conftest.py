"""Which implementations the session has, and outputs that hold garbage before they are written.

`target` runs a test once for each of them, `triton_target` for Triton alone; such tests get the mark
`kernel`. Triton's interpreter needs a process of its own: `TRITON_INTERPRET=1 pytest tests -m kernel`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from cases import Target
from hypothesis import HealthCheck, settings

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
POISON = -77
GUARD = 16  # elements on either side of an output

# They need vLLM, which has an environment of its own: make test-vllm.
collect_ignore = ["vllm_engine"]

# The tensors are small and tests run side by side: threads that wait for each other would cost more than they give.
torch.set_num_threads(1)

settings.register_profile(
    "fixed",
    derandomize=True,
    database=None,
    deadline=None,
    max_examples=15 if INTERPRETED else 100,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("fixed")


def _targets() -> list[Target]:
    if INTERPRETED:
        return [Target("triton", "cpu")]
    on_gpu = [Target("torch", "cuda"), Target("triton", "cuda")] if torch.cuda.is_available() else []
    return [Target("torch", "cpu"), *on_gpu]


TARGETS = _targets()


@pytest.fixture(scope="session", params=TARGETS, ids=str)
def target(request: pytest.FixtureRequest) -> Target:
    """One of the session's implementations."""
    return request.param


@pytest.fixture(scope="session", params=[t for t in TARGETS if t.backend == "triton"], ids=str)
def triton_target(request: pytest.FixtureRequest) -> Target:
    """Triton, in a session that can run it."""
    return request.param


@pytest.fixture(scope="module")
def poisoned() -> Iterator[None]:
    """Uninitialised tensors are POISON, within guards of POISON that no kernel may overwrite."""
    new_empty, empty = torch.Tensor.new_empty, torch.empty

    def guarded(flat: torch.Tensor, size: tuple[Any, ...]) -> torch.Tensor:
        return flat.fill_(POISON)[GUARD : flat.numel() - GUARD].view(*size)

    def guarded_new_empty(self: torch.Tensor, *size: Any, **options: Any) -> torch.Tensor:
        return guarded(new_empty(self, _numel(size) + 2 * GUARD, **options), size)

    def guarded_empty(*size: Any, **options: Any) -> torch.Tensor:
        return guarded(empty(_numel(size) + 2 * GUARD, **options), size)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.Tensor, "new_empty", guarded_new_empty)
        patch.setattr(torch, "empty", guarded_empty)
        yield


@pytest.fixture
def driver() -> Iterator[Any]:
    """A Triton driver without a GPU, which only notes the launches."""
    import fake_gpu  # which imports triton: not before a test asks for it

    with fake_gpu.active(fake_gpu.FakeDriver()) as fake:
        yield fake


def _numel(size: tuple[Any, ...]) -> int:
    shape = torch.Size(size[0] if not isinstance(size[0], int) else size)
    return shape.numel()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark what runs per implementation, and leave out what is for Triton alone where there is none."""
    without_triton = all(target.backend != "triton" for target in TARGETS)
    out = [item for item in items if without_triton and "triton_target" in getattr(item, "fixturenames", ())]
    for item in items:
        if {"target", "triton_target"} & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.kernel)
    items[:] = [item for item in items if item not in out]
    config.hook.pytest_deselected(items=out)
