"""Rising and falling load: policies on recorded drafts while the batch grows and shrinks, by one table of costs.

What is worth verifying changes with the load: in a small batch a verification waits for memory and drafts are nearly
free, in a large one each token costs. A policy that learns keeps what it has learned from one stage to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tetris_decode.adaptive import Adaptive
from tetris_decode.policies import NO_SPECULATION, Calibrated, FixedLength, Policy, Tetris
from tetris_decode.simulate import Replay, make_queue, simulate
from tetris_kernels import Calibration, CostTable

LOADS = (1, 4, 16, 64, 256, 512, 256, 64, 16, 4, 1)
BUDGETS = (0.25, 0.5, 1.0, 1.5, 2.0, 3.0)
PLAIN = "no speculation"
ADAPTIVE, CALIBRATED, SAME_STEP = "adaptive", "adaptive, calibrated", "adaptive, same step"
ADAPTIVES = (ADAPTIVE, CALIBRATED, SAME_STEP)
# As many recorded requests for each row, and not fewer in all.
REQUESTS_PER_ROW, FEWEST_REQUESTS = 3, 48


@dataclass(frozen=True)
class Stage:
    """Some time with a full batch of one size.

    batch_size:  requests at a time.
    throughputs: tokens per second of each policy.
    budgets:     of each policy, drafts verified per request and step.
    """

    batch_size: int
    throughputs: Mapping[str, float]
    budgets: Mapping[str, float]

    @property
    def best(self) -> str:
        """The best policy of those whose budget is fixed, chosen for this stage in hindsight."""
        fixed = [name for name in self.throughputs if name not in ADAPTIVES]
        return max(fixed, key=self.throughputs.__getitem__)


def make_policies(costs: CostTable, length: int) -> dict[str, Policy]:
    """No speculation, fixed lengths, TETRIS with fixed budgets that choose among `length` drafts, and `Adaptive`:
    by the drafter's scores, by calibrated ones, and in the same step."""
    policies: dict[str, Policy] = {PLAIN: NO_SPECULATION}
    policies |= {f"fixed k = {k}": FixedLength(k) for k in range(1, length + 1)}
    policies |= {f"TETRIS {budget:g}": Tetris(budget, length) for budget in BUDGETS if budget < length}
    policies[ADAPTIVE] = Adaptive(costs, length)
    policies[CALIBRATED] = Calibrated(Adaptive(costs, length), Calibration(length))
    policies[SAME_STEP] = Adaptive(costs, length, same_step=True)
    return policies


def under_load(
    replay: Replay,
    costs: CostTable,
    *,
    length: int,
    loads: Sequence[int] = LOADS,
    seed: int = 0,
    on_simulation: Callable[[], None] | None = None,
) -> list[Stage]:
    """A stage for each of the loads, one after the other; only steps of a full batch count.

    Args:
        replay: what was recorded, at least `length` drafts.
        costs: of a step.
        length: drafts made for TETRIS to choose from.
        seed: of the queues.
        on_simulation: called after each policy in each stage.

    Raises:
        ValueError: what `simulate` and `Adaptive` refuse.
    """
    policies = make_policies(costs, length)
    stages = []
    for i, batch_size in enumerate(loads):
        count = max(REQUESTS_PER_ROW * batch_size, FEWEST_REQUESTS)
        queue = make_queue(replay.run.num_requests, count, seed + i)
        throughputs, budgets = {}, {}
        for name, policy in policies.items():
            steps = simulate(replay, policy, costs, batch_size=batch_size, queue=queue).steps
            full = [step for step in steps if step.requests == batch_size]
            throughputs[name] = sum(step.emitted for step in full) / sum(step.seconds for step in full)
            budgets[name] = sum(step.verified for step in full) / (batch_size * len(full))
            if on_simulation:
                on_simulation()
        stages.append(Stage(batch_size, throughputs, budgets))
    return stages
