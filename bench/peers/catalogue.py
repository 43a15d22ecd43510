"""All peers, and this library's own `select` in the same form."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from functools import partial

from torch import Tensor

import tetris_kernels
from bench.peers import cpp
from bench.peers.peer import Peer, Select, Unavailable

CPU, GPU = frozenset({"cpu"}), frozenset({"cuda"})


def _from(module: str) -> Callable[[], Select]:
    """Loads `select` of a module here; some need triton, and only when they are used."""

    def load() -> Select:
        try:
            select: Select = importlib.import_module(f"bench.peers.{module}").select
        except ModuleNotFoundError as error:
            raise Unavailable(f"{module} needs the package {error.name}, which is not installed") from error
        return select

    return load


def _compiled_topk() -> Select:
    from bench.peers import topk_vllm

    return topk_vllm.load_compiled()


PEERS = (
    Peer("Python heapq", "TETRIS, Algorithm 1", _from("heap_python"), CPU),
    Peer("numpy partition", "Hoare's Find in numpy", _from("partition_numpy"), CPU),
    Peer("C++ priority_queue", "TETRIS, Algorithm 1", partial(cpp.load, "heap"), CPU),
    Peer("C++ nth_element", "introselect", partial(cpp.load, "nth_element"), CPU),
    Peer("C++ radix", "radix selection", partial(cpp.load, "radix"), CPU),
    Peer("cumprod + topk, eager", "vLLM", _from("topk_vllm"), CPU | GPU, exact=False),
    Peer("cumprod + topk, compiled", "vLLM", _compiled_topk, CPU | GPU, exact=False),
    Peer(
        "two argsorts",
        "TensorRT-LLM",
        _from("argsort_tensorrt"),
        CPU | GPU,
        device_budget=True,
    ),
    Peer("all-pairs rank", "SGLang", _from("all_pairs_rank"), GPU),
    Peer("one-program sort", "sfllm", _from("sort_triton"), GPU, max_entries=8192),
    Peer("topk + scatter_max", "the paper's code", _from("scatter_max_paper"), CPU | GPU, exact=False),
)


def _ours(backend: str) -> Select:
    def select(draft_logprobs: Tensor, budget: int | Tensor, draft_lens: Tensor | None) -> tuple[Tensor, Tensor]:
        picked = tetris_kernels.select(draft_logprobs, budget, draft_lens=draft_lens, backend=backend)
        return picked.lens, picked.cu_lens

    return select


OURS = tuple(
    Peer(f"tetris_kernels, {backend}", "this library", partial(_ours, backend), devices, **abilities)
    for backend, devices, abilities in (
        ("torch", CPU | GPU, {"device_budget": True}),
        ("triton", GPU, {"device_budget": True, "max_entries": 16384}),
    )
)


def by_name(name: str) -> Peer:
    """The peer of that name, or ours."""
    return next(peer for peer in (*OURS, *PEERS) if peer.name == name)
