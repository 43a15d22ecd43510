"""The stages themselves are lossless: their joint law, exactly, over all drafts and a grid of uniforms.

The models are such that every comparison with a uniform is with a multiple of the grid's step, so that uniforms
in the middle of the steps, each as often as the others, give the law as it is.
"""

from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from dataclasses import dataclass, replace
from fractions import Fraction

import pytest
import torch
from cases import Target
from conftest import INTERPRETED, TARGETS
from enumeration import (
    Model,
    Pair,
    Plan,
    Row,
    Tokens,
    Way,
    completed,
    drawn,
    greedy_target,
    of_top,
    outcome_law,
    target_law,
    total_variation,
)
from torch import Tensor

from tetris_kernels import Selection, accept, pack, select_from_logits

K = 2


def grid(tests: int, draws: int) -> list[tuple[float, ...]]:
    steps = (tests, tests, draws)
    return list(itertools.product(*([(i + 0.5) / n for i in range(n)] for n in steps)))


# By whether drafts are one-hot: quarters of p alone, and thirds where one of three quarters is left out.
GRIDS = {False: grid(2, 4), True: grid(4, 12)}


def row(*quarters: int) -> Row:
    return tuple(Fraction(x, 4) for x in quarters)


MODEL = Model((row(1, 2, 1), row(2, 2, 0), row(1, 1, 2)), (row(2, 1, 1), row(1, 1, 2), row(2, 2, 0)))
SHARP = Model((row(0, 4, 0), row(1, 2, 1), row(2, 0, 2)), (row(1, 2, 1), row(2, 1, 1), row(1, 1, 2)))


@dataclass(frozen=True)
class Stages:
    """How the public functions are called; `way` is the same in the words of the enumeration."""

    way: Way
    kind: str = "token"
    temperature: float = 1.0


LOSSLESS = {
    "greedy target": Stages(Way(coupled=False), temperature=0.0),
    "greedy drafts": Stages(Way(coupled=False, argmax=True, one_hot=True)),
    "greedy drafts, coupled": Stages(Way(argmax=True, one_hot=True), "collision"),
    "top": Stages(Way(of_top, coupled=False), "top"),
    "collision": Stages(Way(coupled=False), "collision"),
    "token, coupled": Stages(Way()),
}


def logits(rows: list[Row], target: Target) -> Tensor:
    return torch.tensor([[float(x) for x in row] for row in rows], device=target.device).log()


def stage_outcomes(
    model: Model, stages: Stages, cases: list[tuple[int, Tokens, int]], target: Target
) -> list[dict[Tokens, Fraction]]:
    """The law of what each of `cases` emits: (the token before, drafts, how many of them are selected)."""
    uniforms = GRIDS[stages.way.one_hot]
    repeated = [case for case in cases for _ in uniforms]
    lens = torch.tensor([length for _, _, length in repeated], dtype=torch.int32, device=target.device)
    ids = torch.tensor([drafts for _, drafts, _ in repeated], device=target.device)
    anchors = torch.tensor([last for last, _, _ in repeated], device=target.device)
    selection = Selection(lens, torch.nn.functional.pad(lens.cumsum(0, dtype=torch.int32), (1, 0)))
    capacity = ids.numel() + len(lens)
    packed = pack(selection, ids, anchors, torch.zeros_like(anchors), capacity=capacity, backend=target.backend)
    behind = torch.cat([anchors[:, None], ids], 1)[:, :-1]
    accepted = accept(
        logits(list(model.target), target)[packed.input_ids],
        packed,
        ids,
        torch.tensor(uniforms, device=target.device).repeat(len(cases), 1),
        draft_logits=None if stages.way.one_hot else logits(list(model.draft), target)[behind],
        temperature=stages.temperature,
        bonus="coupled" if stages.way.coupled else "direct",
        backend=target.backend,
    )
    emitted = [tuple(row[:n]) for row, n in zip(accepted.tokens.tolist(), accepted.counts.tolist(), strict=True)]
    size = len(uniforms)
    return [
        {tokens: Fraction(n, size) for tokens, n in Counter(emitted[i : i + size]).items()}
        for i in range(0, len(emitted), size)
    ]


def stage_lens(model: Model, stages: Stages, last: Tokens, rows: Pair, budget: int, target: Target) -> list[int]:
    table = logits(list(model.draft), target)
    ids = torch.tensor(rows, device=target.device)
    behind = torch.cat([torch.tensor(last, device=target.device)[:, None], ids], 1)[:, :-1]
    selection, _ = select_from_logits(table[behind], ids, budget, kind=stages.kind, backend=target.backend)
    return selection.lens.tolist()


def stage_law(model: Model, stages: Stages, budget: int, target: Target) -> dict[Pair, Fraction]:
    """The joint law of what a step emits."""
    one, other = (list(drawn(model, stages.way, last, (), K)) for last in model.first)
    batches = []
    for (row0, weight0), (row1, weight1) in itertools.product(one, other):
        lens = stage_lens(model, stages, model.first, (row0, row1), budget, target)
        cases = [(model.first[r], (row0, row1)[r], lens[r]) for r in (0, 1)]
        batches.append((weight0 * weight1, cases))
    distinct = list(dict.fromkeys(case for _, cases in batches for case in cases))
    laws = dict(zip(distinct, stage_outcomes(model, stages, distinct, target), strict=True))
    joint: dict[Pair, Fraction] = defaultdict(Fraction)
    for weight, (case0, case1) in batches:
        for (tokens0, p0), (tokens1, p1) in itertools.product(laws[case0].items(), laws[case1].items()):
            joint[tokens0, tokens1] += weight * p0 * p1
    return joint


def difference(model: Model, stages: Stages, budget: int, target: Target) -> float:
    """The total variation between the law of each request's first three tokens and the target's."""
    law = stage_law(model, stages, budget, target)
    model = greedy_target(model) if stages.temperature == 0 else model
    law, expected = completed(model, law, 3), target_law(model, 3)
    return float(sum(abs(law.get(pair, 0) - expected.get(pair, 0)) for pair in law.keys() | expected.keys())) / 2


@pytest.fixture(params=TARGETS, ids=str)
def quick_target(request: pytest.FixtureRequest) -> Target:
    """As `target`, but for tests that take too long in the interpreter: without the mark that has them run there."""
    return request.param


def every_case(model: Model, way: Way) -> list[tuple[int, Tokens, int]]:
    rows = [(last, row) for last in range(3) for row, _ in drawn(model, way, last, (), K)]
    return [(last, row, length) for last, row in rows for length in range(K + 1)]


def check_outcomes(model: Model, stages: Stages, cases: list[tuple[int, Tokens, int]], target: Target) -> None:
    for case, law in zip(cases, stage_outcomes(model, stages, cases, target), strict=True):
        assert law == outcome_law(model, stages.way, *case), case


@pytest.mark.parametrize("one_hot", [False, True])
@pytest.mark.parametrize("coupled", [True, False])
def test_what_a_request_emits_has_the_enumerated_law(quick_target, coupled, one_hot):
    stages = Stages(Way(coupled=coupled, argmax=one_hot, one_hot=one_hot))
    for model in (MODEL, SHARP):
        check_outcomes(model, stages, every_case(model, stages.way), quick_target)


@pytest.mark.parametrize("coupled", [True, False])
def test_what_a_few_requests_emit_has_the_enumerated_law(target, coupled):
    stages = Stages(Way(coupled=coupled))
    check_outcomes(MODEL, stages, every_case(MODEL, stages.way)[4 : 6 if INTERPRETED else 8], target)


@pytest.mark.parametrize("way", LOSSLESS)
def test_the_joint_law_of_a_step_is_the_targets(quick_target, way):
    for model, first in [(MODEL, (0, 1)), (SHARP, (2, 1))]:
        begun = replace(model, first=first)
        for budget in (1, 2, 3):
            assert difference(begun, LOSSLESS[way], budget, quick_target) == 0


@pytest.mark.parametrize("budget", [1, 3])
def test_token_score_with_a_direct_bonus_is_as_biased_as_the_enumeration_says(quick_target, budget):
    way = Way(coupled=False, plan=lambda _: Plan(budget))
    expected = total_variation(MODEL, way, steps=1, length=3)
    assert difference(MODEL, Stages(way), budget, quick_target) == expected > 0.01
