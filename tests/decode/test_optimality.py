"""Theorem 2: the dynamic program against recursion in fractions, greedy against `select`, and what it finds."""

from __future__ import annotations

from fractions import Fraction
from functools import cache
from itertools import product

import numpy as np
import oracle
import pytest
import torch

from tetris_decode.optimality import (
    NO_LOSS,
    READINGS,
    Setting,
    experiment,
    greedy_lens,
    loss,
    make_rates,
    transitions,
    values,
)
from tetris_kernels import select

TINY = Setting(num_requests=2, num_drafts=2, capacity=2, horizon=2, length=5)


def in_fractions(rates, capacity: int, objective: str, greedy: bool):
    """Outcome by outcome: value(position of each, steps left), by all choices of a step or by the heap's."""
    num_requests, num_positions, num_drafts = rates.shape
    exact = [[[Fraction(int(x * 64), 64) for x in row] for row in of] for of in rates]
    end = num_positions - 1

    def heap(at):
        def room(p):
            return min(num_drafts, max(end - p - 1, 0)) if objective == "steps" else num_drafts

        lens = [0] * num_requests
        for _ in range(capacity):
            best = None
            for depth, r in product(range(num_drafts), range(num_requests)):
                if lens[r] == depth < room(at[r]):
                    survival = np.prod(exact[r][at[r]][: depth + 1])
                    if best is None or survival > best[0]:
                        best = survival, r
            if best:
                lens[best[1]] += 1
        return tuple(lens)

    @cache
    def value(at, left):
        if objective == "steps" and all(p == end for p in at):
            return Fraction(0)
        if objective == "tokens" and left == 0:
            return Fraction(sum(at))
        choices = (
            [heap(at)]
            if greedy
            else [lens for lens in product(range(num_drafts + 1), repeat=num_requests) if sum(lens) <= capacity]
        )
        results = []
        for lens in choices:
            total = Fraction(0)
            for counts in product(*(range(length + 1) for length in lens)):
                chance = Fraction(1)
                for r, count in enumerate(counts):
                    for j in range(count):
                        chance *= exact[r][at[r]][j]
                    if count < lens[r]:
                        chance *= 1 - exact[r][at[r]][count]
                if chance:
                    after = tuple(min(p + count + 1, end) for p, count in zip(at, counts, strict=True))
                    total += chance * value(after, left - 1)
            results.append(total)
        return 1 + min(results) if objective == "steps" else max(results)

    return value


@pytest.mark.parametrize("objective", ["tokens", "steps"])
@pytest.mark.parametrize("reading", READINGS)
def test_values_are_those_of_a_recursion_in_fractions(reading, objective):
    generator = np.random.default_rng(7)
    for _ in range(3):
        # Multiples of 1/64, so that both have the same rates, and ties are ties.
        rates = np.floor(make_rates(reading, TINY, objective, generator) * 64) / 64
        best, greedy = values(rates, TINY.capacity, TINY.horizon, objective)
        for at in product(range(3), repeat=2):
            for value, is_greedy in ((best, False), (greedy, True)):
                expected = in_fractions(rates, TINY.capacity, objective, is_greedy)(at, TINY.horizon)
                assert value[at] == pytest.approx(float(expected), rel=1e-12)


def test_three_requests():
    setting = Setting(3, 2, 3, 1, 3)
    rates = np.floor(make_rates("free", setting, "steps", np.random.default_rng(1)) * 64) / 64
    best, greedy = values(rates, 3, 1, "steps")
    for value, is_greedy in ((best, False), (greedy, True)):
        assert value[0, 1, 0] == pytest.approx(float(in_fractions(rates, 3, "steps", is_greedy)((0, 1, 0), 0)))


@pytest.mark.parametrize("capacity", [1, 3, 5, 9])
def test_greedy_is_select(capacity):
    """Rates that are powers of two, so that both compare exactly, ties among them."""
    generator = np.random.default_rng(3)
    rates = 2.0 ** -generator.integers(0, 3, (3, 5, 3))
    usable = np.array([3, 3, 2, 1, 0])
    chosen = greedy_lens(rates, capacity, usable)
    for at in product(range(5), repeat=3):
        logs = np.log(np.stack([rates[r, p] for r, p in enumerate(at)]))
        lens = torch.tensor([usable[p] for p in at])
        expected = select(torch.from_numpy(logs).float(), capacity, draft_lens=lens).lens.tolist()
        keys = oracle.batch_keys([row[:n].tolist() for row, n in zip(logs, lens.tolist(), strict=True)])
        assert chosen[at].tolist() == expected == oracle.greedy(keys, capacity)


def test_transitions_are_laws():
    moves = transitions(make_rates("free", TINY, "steps", np.random.default_rng(0)))
    np.testing.assert_allclose(moves.sum(-1), 1)
    assert (moves >= 0).all() and (moves[..., -1, -1] == 1).all()
    assert (moves[:, 0, 0, 1] == 1).all(), "without drafts it is one token"


def test_what_the_readings_say():
    """Where a step's rates do not depend on what came before, the best of each step is the best of all."""
    losses = {(x.reading, x.objective): x for x in experiment(Setting(horizon=3, length=6), 12, seed=0)}
    for reading in ("depth", "request"):
        assert losses[reading, "tokens"].with_loss == 0 and losses[reading, "tokens"].worst <= 100 * NO_LOSS
    for reading in ("text", "free"):
        found = losses[reading, "tokens"]
        assert found.with_loss > 0 and 0 < found.mean < found.worst < 20
    assert all(x.instances == 12 and x.mean >= 0 for x in losses.values())


def test_a_loss_by_hand():
    """A draft that is a little worse now and leads to one that is certain."""
    rates = np.zeros((2, 13, 2))
    # Request 0: .5 now and nothing later. Request 1: .4, then certain ones if it was accepted.
    rates[0, 0, 0], rates[1, 0, 0] = 0.5, 0.4
    rates[1, 2, 0] = 1.0
    # Greedy: 2 + .5, then 2 + 0. The other way: 2 + .4, then 2 + .4.
    assert loss(rates, 1, 2, "tokens", (0, 0)) == pytest.approx((4.8 - 4.5) / 4.8)


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: Setting(num_requests=0), "num_requests: expected 1 or more, got 0"),
        (lambda: Setting(capacity=0), "capacity: expected 1 or more, got 0"),
        (lambda: Setting(num_requests=6), r"setting: expected at most 100,000 states, got 85,766,121"),
        (
            lambda: make_rates("row", TINY, "tokens", np.random.default_rng(0)),
            "reading: expected one of depth, request, text, free, got row",
        ),
        (lambda: values(np.zeros((1, 2, 1)), 1, 1, "time"), "objective: expected one of tokens, steps, got time"),
    ],
)
def test_bad_input(make, text):
    with pytest.raises(ValueError, match=text):
        make()
