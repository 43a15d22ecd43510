"""The stages as torch operators: what torch.compile, torch.export and fake tensors see.

Each operator has one schema, one implementation for every device, which is what eager calls run
directly, and one fake.
"""

from __future__ import annotations

import torch
from torch import Tensor

from tetris_kernels.backend import selection_backend

_LIBRARY = torch.library.Library("tetris_kernels", "DEF")

_LIBRARY.define(
    "select(Tensor draft_logprobs, Tensor? budget, SymInt host_budget, Tensor? draft_lens, Tensor? min_lens, "
    "Tensor? max_lens, Tensor? log_weights, str backend) -> (Tensor, Tensor)",
    tags=(torch.Tag.pt2_compliant_tag,),
)


def select(
    draft_logprobs: Tensor,
    budget: Tensor | None,
    host_budget: int,
    draft_lens: Tensor | None,
    min_lens: Tensor | None,
    max_lens: Tensor | None,
    log_weights: Tensor | None,
    backend: str,
) -> tuple[Tensor, Tensor]:
    """(lens, cu_lens) of checked arguments, by the backend that is named or fits."""
    run = selection_backend(backend, draft_logprobs).select
    outputs: tuple[Tensor, Tensor] = run(
        draft_logprobs, budget, host_budget, draft_lens, min_lens, max_lens, log_weights
    )
    return outputs


def _fake_select(draft_logprobs: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    num_requests = draft_logprobs.shape[0]
    lens = draft_logprobs.new_empty(num_requests, dtype=torch.int32)
    return lens, draft_logprobs.new_empty(num_requests + 1, dtype=torch.int32)


_LIBRARY.impl("select", select, "CompositeExplicitAutograd")
torch.library.register_fake("tetris_kernels::select", _fake_select, lib=_LIBRARY)


def is_traced(*tensors: Tensor | None) -> bool:
    """Whether a call must go through the operator: under tracing, dispatch modes and torch.func, or for subclasses."""
    return (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack() > 0
        or torch._C._functorch.peek_interpreter_stack() is not None
        or any(type(t) not in _PLAIN for t in tensors)
    )


_PLAIN = (Tensor, torch.nn.Parameter, type(None))
