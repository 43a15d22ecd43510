"""`tetris-decode bench`: which policies are measured, at which batch sizes and temperatures, by which costs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from transformers import PreTrainedModel

from tetris_decode.adaptive import Adaptive
from tetris_decode.bench import Lane, Queue, Row, rows, run_lanes
from tetris_decode.drafting import Drafter
from tetris_decode.goodput import Dsd
from tetris_decode.policies import NO_SPECULATION, Calibrated, FixedLength, Policy, Tetris, Threshold
from tetris_decode.profiling import measure_costs
from tetris_decode.simulate import Replay, make_queue, simulate
from tetris_kernels import Calibration, CostTable

NO_SPECULATION_NAME = "no speculation"
ADAPTIVE_NAME = "adaptive"
FIXED_LENGTHS = (1, 2, 3)
BUDGETS = (0.5, 1.0)
# Budgets and drafts of which the simulator chooses, beside no speculation.
PLANNED_BUDGETS = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 2.0, 2.5, 3.0)
PLANNED_LENGTHS = (2, 3, 4, 8)
# The n-gram drafter was tuned on these prompts.
LEFT_OUT = "docstring/"
CONFIDENCE = 0.4  # the default of transformers' assisted generation
DSD_LENGTH = 6
# Steps in which a calibration sees all drafts; a lane's warm-up is longer.
FEWEST_WARM_UP, MOST_WARM_UP, WARM_UP_VERIFICATIONS = 4, 16, 128
PROFILED = 20  # steps of each size, for the costs
SIMULATED_REQUESTS = 64  # and four batches at least


@dataclass(frozen=True)
class Settings:
    """batch_sizes, temperatures: each with each.

    max_new_tokens:        of a request.
    num_drafts:            made for TETRIS and the threshold to choose from.
    longest_prompt:        in tokens; longer ones are left out.
    blocks, block_seconds: of each policy's own time.
    """

    batch_sizes: tuple[int, ...] = (1, 4, 8, 16, 32)
    temperatures: tuple[float, ...] = (0.0, 0.7)
    max_new_tokens: int = 96
    num_drafts: int = 8
    longest_prompt: int = 256
    blocks: int = 12
    block_seconds: float = 1.0


@dataclass(frozen=True)
class Case:
    """One batch size and temperature: what was measured, and the costs that policies went by.

    planned: "TETRIS, planned"; None if there was nothing to plan with.
    """

    rows: list[Row]
    costs: CostTable
    planned: Policy | None


def run(
    model: PreTrainedModel,
    prompts: Sequence[Sequence[int]],
    eos_token_ids: Sequence[int],
    drafter: Drafter,
    settings: Settings,
    *,
    recorded: Callable[[float], Replay | None],
    on_block: Callable[[str], None],
) -> Iterator[Case]:
    """Measure case by case.

    Args:
        prompts: token ids; each lane goes over them as often as it needs.
        recorded: this drafter's recorded drafts at a temperature, to plan a budget with; None if there are none.
        on_block: called with what was done.
    """
    for batch_size in settings.batch_sizes:
        for temperature in settings.temperatures:
            title = f"{batch_size} requests, temperature {temperature:g}"
            queue = Queue.running(
                model,
                prompts,
                _requests(batch_size, settings),
                settings.max_new_tokens,
                batch_size=batch_size,
                temperature=temperature,
                eos_token_ids=eos_token_ids,
            )
            on_block(f"{title}: first texts")
            running = queue.prompts[:batch_size]
            costs = measure_costs(
                model, running, drafter, num_drafts=settings.num_drafts, steps=PROFILED, temperature=temperature
            )
            replay = recorded(temperature)
            planned = None if replay is None else plan(replay, costs, batch_size, settings.num_drafts)
            policies = make_policies(costs, batch_size, settings.num_drafts, planned, device=model.device)
            on_block(f"{title}: costs")
            lanes = {
                name: Lane(
                    policy,
                    model,
                    queue,
                    drafter,
                    batch_size=batch_size,
                    temperature=temperature,
                    eos_token_ids=eos_token_ids,
                )
                for name, policy in policies.items()
            }
            run_lanes(
                list(lanes.values()),
                blocks=settings.blocks,
                block_seconds=settings.block_seconds,
                on_block=partial(on_block, title),
            )
            measured = rows(lanes, model, queue, batch_size=batch_size, temperature=temperature)
            yield Case(measured, costs, planned)


def _requests(batch_size: int, settings: Settings) -> int:
    """More than the fastest lane can finish: each of a batch has a token in 2 ms, and texts have an eighth of their
    length at least. Warming up is as much again."""
    tokens = 2 * settings.blocks * settings.block_seconds * 500 * batch_size
    return batch_size + int(tokens / max(1, settings.max_new_tokens // 8))


def make_policies(
    costs: CostTable,
    batch_size: int,
    num_drafts: int,
    planned: Policy | None,
    *,
    device: torch.device | str = "cpu",
) -> dict[str, Policy]:
    """Plain decoding first. Budgets that are no draft at all in this batch are left out, and adaptive ones by costs
    that do not rise."""
    policies: dict[str, Policy] = {NO_SPECULATION_NAME: NO_SPECULATION}
    policies |= {f"fixed k = {k}": FixedLength(k) for k in FIXED_LENGTHS}
    policies["DSD"] = Dsd(costs, DSD_LENGTH)
    policies[f"threshold {CONFIDENCE:g}"] = Threshold(CONFIDENCE, num_drafts)
    budgets = [budget for budget in BUDGETS if round(budget * batch_size)]
    policies |= {f"TETRIS {budget:g}": Tetris(budget, num_drafts) for budget in budgets}
    if planned is not None:
        policies["TETRIS, planned"] = planned
    # A few tokens more may cost nothing that can be measured.
    if costs.rises:
        warmup = max(FEWEST_WARM_UP, WARM_UP_VERIFICATIONS // batch_size)
        calibration = Calibration(num_drafts, warmup=min(warmup, MOST_WARM_UP), device=device)
        policies[ADAPTIVE_NAME] = Adaptive(costs, num_drafts)
        policies[f"{ADAPTIVE_NAME}, calibrated"] = Calibrated(Adaptive(costs, num_drafts), calibration)
        policies[f"{ADAPTIVE_NAME}, same step"] = Adaptive(costs, num_drafts, same_step=True)
    return policies


def plan(replay: Replay, costs: CostTable, batch_size: int, num_drafts: int) -> Policy:
    """No speculation, or the budget and the drafts with the highest throughput in the simulator, by these costs.

    Only the recorded prompts that the bench decodes count, those that are no docstrings, and only steps of a full
    batch, which is what the lanes are.
    """

    def throughput(policy: Policy) -> float:
        steps = simulate(replay, policy, costs, batch_size=batch_size, queue=queue).steps
        full = [step for step in steps if step.requests == batch_size]
        return sum(step.emitted for step in full) / sum(step.seconds for step in full)

    requests = [i for i, name in enumerate(replay.run.prompts) if not name.startswith(LEFT_OUT)]
    shuffled = make_queue(len(requests), max(SIMULATED_REQUESTS, 4 * batch_size), seed=0)
    queue = [requests[i] for i in shuffled]
    candidates: list[Policy] = [NO_SPECULATION]
    candidates += [
        Tetris(budget, length)
        for budget in PLANNED_BUDGETS
        for length in sorted({min(length, num_drafts) for length in PLANNED_LENGTHS})
        if budget <= length and round(budget * batch_size)
    ]
    return max(candidates, key=throughput)
