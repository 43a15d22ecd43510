"""Which selection is lossless: every condition enumerated exactly, where it holds and where it is broken."""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import pytest
from enumeration import (
    Keys,
    Model,
    Pair,
    Plan,
    Row,
    Way,
    completed,
    differences,
    emitted_law,
    greedy_target,
    of_collision,
    of_top,
    random_model,
    target_law,
    total_variation,
)

HALF, TENTH = Fraction(1, 2), Fraction(1, 10)


def of_id(q: Row, token: int) -> Fraction:
    """A score that means nothing."""
    return Fraction(1, 2 + token)


# What they emit may have any score, and any budget: nothing that is looked at was drawn, or nothing drawn matters.
ANY_SCORE = {
    "greedy target, token": Way(coupled=False),
    "greedy target, top": Way(of_top),
    "greedy target, meaningless score": Way(of_id, coupled=False),
    "argmax drafts, token": Way(coupled=False, argmax=True, one_hot=True),
    "argmax drafts, collision, coupled": Way(of_collision, argmax=True, one_hot=True),
    "argmax drafts, meaningless score": Way(of_id, coupled=False, argmax=True, one_hot=True),
}
PREFIX_ONLY = {
    "top": Way(of_top, coupled=False),
    "collision": Way(of_collision, coupled=False),
    "top, coupled": Way(of_top),
}
LOSSLESS = ANY_SCORE | PREFIX_ONLY | {"token, coupled": Way()}
SAMPLED = ["top", "collision", "top, coupled", "token, coupled"]
DIRECT = Way(coupled=False)


def model_of(way: str, seed: int, size: int = 2) -> Model:
    model = random_model(seed, size)
    return greedy_target(model) if way.startswith("greedy target") else model


def from_earlier_steps(budget: int) -> Callable[[Pair], Plan]:
    """Everything follows from what was emitted."""

    def plan(history: Pair) -> Plan:
        one, other = (len(tokens) for tokens in history)
        weights = tuple(float(sum(tokens)) for tokens in history)
        return Plan((budget + one) % 5, (2, 1 + other % 2), (one % 2, 0), (2 - other % 2, 2), (weights[1], weights[0]))

    return plan


PLANS: dict[str, Callable[[int], Callable[[Pair], Plan]]] = {
    "budget": lambda budget: lambda _: Plan(budget),
    "weights": lambda budget: lambda _: Plan(budget, log_weights=(0.4, -0.3)),
    "floors": lambda budget: lambda _: Plan(budget, min_lens=(1, 0)),
    "ceilings": lambda budget: lambda _: Plan(budget, max_lens=(1, 2)),
    "ragged": lambda budget: lambda _: Plan(budget, draft_lens=(2, 1)),
    "one without drafts": lambda budget: lambda _: Plan(budget, draft_lens=(0, 2)),
    "from earlier steps": from_earlier_steps,
}


def survival_above(threshold: float) -> Callable[[Keys, int], int]:
    """As many drafts as survive with at least this probability."""
    limit = int(-math.log(threshold) * 65536)
    return lambda keys, budget: bisect_right(sorted(key for row in keys for key in row), limit)


def throughput(keys: Keys, costs: list[float]) -> list[float]:
    """Tokens expected of the step per unit of cost, for each number of drafts in rank order."""
    tokens = [2.0]
    for key in sorted(key for row in keys for key in row):
        tokens.append(tokens[-1] + math.exp(-key / 65536))
    return [t / cost for t, cost in zip(tokens, costs, strict=False)]


def first_drop(*costs: float) -> Callable[[Keys, int], int]:
    def rule(keys: Keys, budget: int) -> int:
        values = throughput(keys, list(costs))
        return next((c for c in range(len(values) - 1) if values[c + 1] < values[c]), len(values) - 1)

    return rule


def highest(*costs: float) -> Callable[[Keys, int], int]:
    def rule(keys: Keys, budget: int) -> int:
        values = throughput(keys, list(costs))
        return values.index(max(values))

    return rule


STAIRCASE = (1, 1.3, 1.35, 1.7, 1.75)
IN_RANK_ORDER = {"threshold": survival_above(0.4), "first drop": first_drop(*STAIRCASE)}


def is_target(model: Model, way: Way, steps: int, length: int, num_drafts: int = 2) -> bool:
    """Whether the joint law is the target's, exactly."""
    return not any(differences(model, way, steps, length, num_drafts))


def test_the_target_alone_is_the_target():
    model = random_model(3, size=3)
    law = emitted_law(model, Way(), steps=2, num_drafts=0)
    assert law == completed(model, law, 2)
    assert {pair: p for pair, p in target_law(model, 2).items() if p} == law
    assert sum(completed(model, law, 4).values()) == 1


def test_the_numbers_of_the_contract():
    model = Model(((HALF, HALF),) * 2, ((9 * TENTH, TENTH),) * 2)
    law = emitted_law(model, replace(DIRECT, plan=lambda _: Plan(1)), steps=1, num_drafts=1)
    first = completed(model, law, 1)
    assert [sum(p for (one, _), p in first.items() if one == (x,)) for x in (0, 1)] == [
        Fraction(545, 1000),
        Fraction(455, 1000),
    ]


@pytest.mark.parametrize("plan", PLANS)
@pytest.mark.parametrize("way", LOSSLESS)
def test_every_plan_and_budget(way, plan):
    for budget in range(5):
        planned = replace(LOSSLESS[way], plan=PLANS[plan](budget))
        assert is_target(model_of(way, seed=20 + budget), planned, steps=2, length=3)


@pytest.mark.parametrize("rule", IN_RANK_ORDER)
@pytest.mark.parametrize("way", LOSSLESS)
def test_a_budget_that_stops_in_rank_order(way, rule):
    for seed in (4, 6, 20):
        assert is_target(model_of(way, seed), replace(LOSSLESS[way], rule=IN_RANK_ORDER[rule]), steps=2, length=3)


@pytest.mark.parametrize("way", ANY_SCORE)
def test_any_budget_where_any_score_will_do(way):
    for seed in (20, 33, 40):
        assert is_target(model_of(way, seed), replace(ANY_SCORE[way], rule=highest(*STAIRCASE)), steps=2, length=3)


@pytest.mark.parametrize("way", SAMPLED)
@pytest.mark.parametrize(("size", "steps", "length"), [(2, 3, 6), (3, 2, 4)])
def test_more_steps_and_tokens(way, size, steps, length):
    planned = replace(LOSSLESS[way], plan=from_earlier_steps(1))
    assert is_target(random_model(5, size), planned, steps, length)


@pytest.mark.parametrize("way", ["top", "token, coupled"])
def test_three_drafts(way):
    assert is_target(random_model(6), replace(LOSSLESS[way], plan=PLANS["weights"](3)), steps=1, length=4, num_drafts=3)


@pytest.mark.parametrize("way", LOSSLESS)
def test_tokens_that_only_one_of_the_models_can_emit(way):
    third = Fraction(1, 3)
    model = Model(
        ((0 * third, 1 - third, third), (1 - third, third, 0 * third), (third,) * 3),
        ((1 - 0 * third, 0 * third, 0 * third), (0 * third, HALF, HALF), (0 * third, third, 1 - third)),
    )
    model = greedy_target(model) if way.startswith("greedy target") else model
    assert is_target(model, replace(LOSSLESS[way], plan=lambda _: Plan(2)), steps=2, length=3)


def bias(way: Way, seed: int, context: bool = True, num_drafts: int = 2) -> float:
    """How far the joint law of the first three tokens after two steps is from the target's, in total variation."""
    model = random_model(seed)
    if not context:
        model = replace(model, draft=model.draft[:1] * 2)
    return total_variation(model, way, 2, 3, num_drafts)


def about(amount: float) -> object:
    return pytest.approx(amount, abs=5e-5)


@pytest.mark.parametrize(
    ("plan", "budget", "amount"),
    [
        ("budget", 1, 0.1011),
        ("budget", 2, 0.1309),
        ("weights", 2, 0.1202),
        ("floors", 2, 0.0756),
        ("ceilings", 2, 0.0756),
        ("ragged", 2, 0.0756),
        ("from earlier steps", 1, 0.0685),
    ],
)
def test_token_score_with_a_direct_bonus_is_biased(plan, budget, amount):
    assert bias(replace(DIRECT, plan=PLANS[plan](budget)), 6) == about(amount)


@pytest.mark.parametrize(("rule", "amount"), [("threshold", 0.2493), ("first drop", 0.1708)])
def test_so_it_is_when_the_budget_stops_in_rank_order(rule, amount):
    assert bias(replace(DIRECT, rule=IN_RANK_ORDER[rule]), 6) == about(amount)


@pytest.mark.parametrize(("way", "seed", "amount"), [("token, coupled", 20, 0.0734), ("top", 33, 0.2025)])
def test_the_best_of_all_budgets_on_a_staircase_is_biased(way, seed, amount):
    assert bias(replace(LOSSLESS[way], rule=highest(*STAIRCASE)), seed) == about(amount)
    assert is_target(random_model(seed), replace(LOSSLESS[way], rule=first_drop(*STAIRCASE)), steps=2, length=3)


def stop_at_token_1(plan: Plan, drafts: Pair, handed_over: bool) -> Plan:
    """The drafter goes on until it draws token 1, which looks bad."""
    ends = [row.index(1) if 1 in row else len(row) for row in drafts]
    return plan._replace(draft_lens=tuple(min(end + handed_over, 2) for end in ends))


@pytest.mark.parametrize(("way", "amount"), [("token, coupled", 0.3029), ("top", 0.2159)])
def test_the_draft_at_which_a_drafter_stops_must_be_handed_over(way, amount):
    def look(handed_over: bool) -> Way:
        def at_drafts(plan: Plan, drafts: Pair) -> Plan:
            return stop_at_token_1(plan, drafts, handed_over)

        return replace(LOSSLESS[way], plan=lambda _: Plan(2), look=at_drafts)

    assert bias(look(handed_over=False), 6) == about(amount)
    for seed in range(8):
        assert is_target(random_model(seed), look(handed_over=True), steps=2, length=3)


@pytest.mark.parametrize(("coupled", "amount"), [(True, 0.4686), (False, 0.3439)])
def test_argmax_drafts_tested_as_draws_are_biased(coupled, amount):
    assert bias(Way(coupled=coupled, argmax=True, plan=lambda _: Plan(2)), 6) == about(amount)


# What looks at the last draft looks beyond where a request may be cut.
LOOKS: dict[str, Callable[[Plan, Pair], Plan]] = {
    "weights": lambda plan, drafts: plan._replace(log_weights=tuple(3.0 * row[-1] for row in drafts)),
    "floors": lambda plan, drafts: plan._replace(min_lens=tuple(2 * row[-1] for row in drafts)),
    "ceilings": lambda plan, drafts: plan._replace(max_lens=tuple(2 * row[-1] for row in drafts)),
}


@pytest.mark.parametrize(
    ("way", "look", "amount"),
    [
        ("token, coupled", "weights", 0.0367),
        ("token, coupled", "floors", 0.0367),
        ("token, coupled", "ceilings", 0.1447),
        ("top", "weights", 0.0889),
        ("top", "floors", 0.0889),
        ("top", "ceilings", 0.1458),
    ],
)
def test_weights_floors_and_ceilings_that_look_at_the_drafts_are_biased(way, look, amount):
    assert bias(replace(LOSSLESS[way], plan=lambda _: Plan(2), look=LOOKS[look]), 6) == about(amount)


@pytest.mark.parametrize(("num_drafts", "budget", "amount"), [(2, 3, 0.0186), (3, 3, 0.0199), (3, 4, 0.0319)])
def test_drafts_that_were_looked_at_are_not_proposed_again(num_drafts, budget, amount):
    # The drafter does not look at the context: what a draft is tested against stays what it was drawn from.
    way = Way(plan=lambda _: Plan(budget))
    assert bias(replace(way, reuse=True), 4, context=False, num_drafts=num_drafts) == about(amount)
    assert bias(way, 4, context=False, num_drafts=num_drafts) == 0
