"""What follows from the contract of `select`, on batches that hypothesis draws."""

from __future__ import annotations

from typing import Any

import oracle
import pytest
import torch
from cases import INF, NAN, UNIT, Case, Target, lens
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

pytestmark = pytest.mark.usefixtures("poisoned")

# Few values, so that ties are common; some of them not numbers that a drafter should give.
LOGPROBS = st.one_of(
    st.sampled_from([0.0, -0.0, -0.25, -0.5, -1.0, -UNIT, -UNIT / 2, 0.5, -70.0, -INF, NAN]),
    st.floats(-8, 0, width=32),
)
WEIGHTS = st.one_of(st.sampled_from([0.0, 0.25, -0.25, 600.0, -600.0, INF, NAN]), st.floats(-4, 4, width=32))


@st.composite
def batches(draw: st.DrawFn, size: int = 6, full: bool = True) -> Case:
    """Up to `size` requests of up to `size` drafts; with `full` any of the optional tensors."""
    n, k = draw(st.integers(1, size)), draw(st.integers(1, size))

    def column(elements: st.SearchStrategy[Any], dtype: torch.dtype) -> Tensor | None:
        values = draw(st.none() | st.lists(elements, min_size=n, max_size=n)) if full else None
        return None if values is None else torch.tensor(values, dtype=dtype)

    values = draw(st.lists(LOGPROBS, min_size=n * k, max_size=n * k))
    ints, dtype = st.integers(-1, k + 1), draw(st.sampled_from([torch.int32, torch.int64]))
    return Case(
        "drawn",
        torch.tensor(values).view(n, k),
        draft_lens=column(ints, dtype),
        min_lens=column(ints, dtype),
        max_lens=column(ints, dtype),
        log_weights=column(WEIGHTS, torch.float32),
    )


BUDGETS = st.integers(0, 38)


def kept(case: Case, budget: int, target: Target) -> list[int]:
    return case.on(target.device).select(budget, target.backend).lens.tolist()


def without(case: Case, *names: str) -> Case:
    return Case(case.name, case.logprobs, **{name: t for name, t in case.rows.items() if name not in names})


def taken(keys: list[list[int]], lens: list[int]) -> list[tuple[int, int]]:
    """(key, position) of the kept drafts, in order."""
    return sorted((row[j], j) for row, length in zip(keys, lens, strict=True) for j in range(length))


@given(case=batches(), budget=BUDGETS)
def test_the_budget_is_used_up_and_never_exceeded(target: Target, case: Case, budget: int) -> None:
    usable = [len(row) for row in case.order_keys()]
    lens = kept(case, budget, target)
    assert sum(lens) == min(budget, sum(usable))
    assert all(0 <= length <= most for length, most in zip(lens, usable, strict=True))


@given(case=batches(), budget=BUDGETS)
def test_every_row_of_the_mask_is_a_prefix(target: Target, case: Case, budget: int) -> None:
    n, k = case.logprobs.shape
    picked = case.on(target.device).select(budget, target.backend)
    mask = picked.mask(k).int()
    assert mask.shape == (n, k) and (mask.diff(dim=1) <= 0).all()
    assert mask.sum() == picked.cu_lens[-1]


@given(case=batches(), budget=BUDGETS, more=st.integers(1, 8))
def test_a_larger_budget_never_takes_a_draft_away(target: Target, case: Case, budget: int, more: int) -> None:
    small, large = kept(case, budget, target), kept(case, budget + more, target)
    assert all(a <= b for a, b in zip(small, large, strict=True))


@given(case=batches(), budget=BUDGETS, order=st.randoms(use_true_random=False))
def test_requests_can_be_permuted(target: Target, case: Case, budget: int, order: Any) -> None:
    shuffled = list(range(case.logprobs.shape[0]))
    order.shuffle(shuffled)
    moved = Case("", case.logprobs[shuffled], **{name: t[shuffled] for name, t in case.rows.items()})
    before, after = kept(case, budget, target), kept(moved, budget, target)
    # Up to ties: the same keys at the same depths, and the same lens where no two of these are equal.
    assert taken(case.order_keys(), before) == taken(moved.order_keys(), after)
    pairs = taken(case.order_keys(), [len(row) for row in case.order_keys()])
    if len(set(pairs)) == len(pairs):
        assert after == [before[r] for r in shuffled]


@given(case=batches(size=3), budget=st.integers(0, 9))
def test_no_other_choice_of_prefixes_is_better(target: Target, case: Case, budget: int) -> None:
    keys = case.order_keys()
    lens = kept(case, budget, target)
    best = oracle.chosen(keys, lens)
    for other in oracle.prefix_choices(keys, sum(lens)):
        assert all(ours <= theirs for ours, theirs in zip(best, oracle.chosen(keys, other), strict=True))


@given(case=batches(), budget=BUDGETS, value=LOGPROBS | st.sampled_from([3e38, -3e38, INF]))
def test_nothing_beyond_the_usable_drafts_matters(target: Target, case: Case, budget: int, value: float) -> None:
    usable = torch.tensor([len(row) for row in case.order_keys()])
    beyond = torch.arange(case.logprobs.shape[1]) >= usable[:, None]
    other = Case("", case.logprobs.masked_fill(beyond, value), **case.rows)
    assert kept(other, budget, target) == kept(case, budget, target)


@given(case=batches(), budget=BUDGETS, weight=WEIGHTS, floor=st.integers(-3, 9))
def test_an_empty_row_matters_to_nobody(target: Target, case: Case, budget: int, weight: float, floor: int) -> None:
    n = case.logprobs.shape[0]
    rows = {"draft_lens": torch.full((n,), 99), "min_lens": torch.zeros(n, dtype=torch.int64)} | case.rows
    rows.setdefault("log_weights", torch.zeros(n))
    new = {"draft_lens": 0, "min_lens": floor, "max_lens": 9, "log_weights": weight}
    longer: dict[str, Any] = {
        name: torch.cat([t, torch.tensor([new[name]], dtype=t.dtype)]) for name, t in rows.items()
    }
    other = Case("", torch.cat([case.logprobs, torch.zeros(1, case.logprobs.shape[1])]), **longer)
    assert kept(other, budget, target) == [*kept(case, budget, target), 0]


@given(case=batches(), budget=BUDGETS, data=st.data())
def test_floors_come_first_and_shallow_ones_before_deep_ones(
    target: Target, case: Case, budget: int, data: st.DataObject
) -> None:
    n, k = case.logprobs.shape
    drawn = data.draw(st.lists(st.integers(0, k), min_size=n, max_size=n))
    case = Case("", case.logprobs, **case.rows | {"min_lens": lens(drawn)})
    floors = [min(floor, len(row)) for floor, row in zip(drawn, case.order_keys(), strict=True)]
    found = kept(case, budget, target)
    if sum(floors) <= budget:
        assert all(length >= floor for length, floor in zip(found, floors, strict=True))
    else:
        assert sum(found) == budget and all(a <= b for a, b in zip(found, floors, strict=True))
        cut = [length for length, floor in zip(found, floors, strict=True) if length < floor]
        assert max(found) <= min(cut) + 1


@given(case=batches(), budget=BUDGETS, data=st.data())
def test_a_ceiling_acts_as_the_draft_lens_do(target: Target, case: Case, budget: int, data: st.DataObject) -> None:
    n, k = case.logprobs.shape
    limits = lens(data.draw(st.lists(st.integers(-1, k + 1), min_size=n, max_size=n)))
    rows = without(case, "draft_lens", "max_lens").rows
    found = kept(Case("", case.logprobs, **rows, max_lens=limits), budget, target)
    assert found == kept(Case("", case.logprobs, **rows, draft_lens=limits), budget, target)
    assert all(length <= max(limit, 0) for length, limit in zip(found, limits.tolist(), strict=True))


@given(case=batches(), budget=BUDGETS, sixteenths=st.integers(-900, 900), data=st.data())
def test_only_differences_of_weights_matter(
    target: Target, case: Case, budget: int, sixteenths: int, data: st.DataObject
) -> None:
    n = case.logprobs.shape[0]
    # Multiples of 1/16 far from the clamp: each sum is exact.
    weights = torch.tensor(data.draw(st.lists(st.integers(-900, 900), min_size=n, max_size=n))) / 16
    case = Case("", case.logprobs, **case.rows | {"log_weights": weights})
    other = Case("", case.logprobs, **case.rows | {"log_weights": weights + sixteenths / 16})
    assert kept(other, budget, target) == kept(case, budget, target)


@given(case=batches(), budget=BUDGETS, weight=WEIGHTS)
def test_equal_weights_are_no_weights(target: Target, case: Case, budget: int, weight: float) -> None:
    case = without(case, "log_weights")
    equal = torch.full((case.logprobs.shape[0],), weight)
    other = Case("", case.logprobs, **case.rows | {"log_weights": equal})
    assert kept(other, budget, target) == kept(case, budget, target)


@given(case=batches(), budget=BUDGETS, row=st.integers(0, 5))
def test_more_weight_never_takes_a_draft_away(target: Target, case: Case, budget: int, row: int) -> None:
    n = case.logprobs.shape[0]
    assume(row < n)
    weights = case.rows.get("log_weights", torch.zeros(n)).nan_to_num(-500.0)
    case = Case("", case.logprobs, **case.rows | {"log_weights": weights})
    more = weights + (torch.arange(n) == row) * 3.0
    other = Case("", case.logprobs, **case.rows | {"log_weights": more})
    assert kept(other, budget, target)[row] >= kept(case, budget, target)[row]


@given(case=batches(), budget=BUDGETS, eighths=st.integers(1, 7))
def test_costs_are_truncated_to_units(target: Target, case: Case, budget: int, eighths: int) -> None:
    # Up to 8 nats float32 holds eighths of a unit.
    case = Case("", case.logprobs.nan_to_num(-1.0).clamp(-8, 0), **case.rows)
    units = (case.logprobs / UNIT).ceil()
    exact, finer = (Case("", (units - part) * UNIT, **case.rows) for part in (0, eighths / 8))
    assert kept(exact, budget, target) == kept(case, budget, target) == kept(finer, budget, target)


@given(case=batches(full=False), budget=BUDGETS, dtype=st.sampled_from([torch.bfloat16, torch.float16]))
def test_a_short_float_counts_as_its_float32(target: Target, case: Case, budget: int, dtype: torch.dtype) -> None:
    short = Case("", case.logprobs.to(dtype))
    assert kept(short, budget, target) == kept(Case("", short.logprobs.float()), budget, target)
