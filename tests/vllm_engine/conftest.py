"""Of the tests with the real engine: `make test-vllm`, in an environment of its own. The variables are read by vLLM
when it is imported; the plugin is on, with engines that verify everything unless they say otherwise."""

from __future__ import annotations

import os

import pytest

os.environ.update(
    TETRIS_VLLM_BUDGET="all",
    VLLM_CPU_KVCACHE_SPACE="1",
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_NO_USAGE_STATS="1",
    HF_HUB_OFFLINE="1",
    TOKENIZERS_PARALLELISM="false",
)

import tiny_checkpoints


@pytest.fixture(scope="session")
def folders(tmp_path_factory) -> dict[str, str]:
    return tiny_checkpoints.make_pair(tmp_path_factory.mktemp("checkpoints"))


@pytest.fixture(scope="session")
def law(tmp_path_factory):
    return tiny_checkpoints.make_law_pair(tmp_path_factory.mktemp("checkpoints"))
