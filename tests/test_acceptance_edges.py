"""`accept` where values are at their limits: each case with its outcome written out."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from acceptance_cases import DTYPES, LAST_UNIFORM, Case, batch, check, logits, run, token_ids
from cases import INF, NAN, Target, copy
from conftest import INTERPRETED

from tetris_kernels import accept

pytestmark = pytest.mark.usefixtures("poisoned")

A, B = [0.0, 0.0, -INF, -INF], [-INF, -INF, 0.0, 0.0]  # half on tokens 0 and 1, half on 2 and 3
ALL, ONE = [0.0] * 4, [-INF, -INF, 0.0, -INF]


def one(
    target: list[list[float]],
    ids: list[int],
    uniforms: list[float],
    draft: list[list[float]] | None = None,
    **rest: Any,
) -> Case:
    """A batch of one request of which all slots but the first hold a draft."""
    return Case(
        "",
        torch.tensor(target),
        (len(target) - 1,),
        torch.tensor([ids], dtype=torch.int64).view(1, len(ids)),
        torch.tensor([uniforms]),
        draft=None if draft is None else torch.tensor([draft]),
        **rest,
    )


# The request, its tokens, and whether the last is coupled.
BY_HAND: dict[str, tuple[Case, list[int], bool]] = {
    "accepted, then a draw": (one([A, A], [1], [0.4, 0.6]), [1, 1], False),
    "accepted at just below p": (one([A, A], [0], [0.5 - 2.0**-10, 0.3]), [0, 0], False),
    "rejected at p": (one([A, A], [0], [0.5 + 2.0**-10, 0.3]), [1, -1], False),
    "coupled": (one([A], [1], [0.4, 0.3]), [1, -1], True),
    "coupled, rejected": (one([A], [1], [0.6, 0.999]), [0, -1], False),
    "direct": (one([A], [1], [0.4, 0.3], bonus="direct"), [0, -1], False),
    "coupled, not beyond the draft lens": (one([A], [1], [0.4, 0.3], draft_lens=(0,)), [0, -1], False),
    "after a rejection nothing": (one([A, A, A], [2, 0], [0.0, 0.0, 0.7]), [1, -1, -1], False),
    "the second is coupled": (one([A, B], [0, 3], [0.1, 0.1, 0.7]), [0, 3, -1], True),
    "p = 0 and u = 0": (one([A, A], [2], [0.0, 0.0]), [0, -1], False),
    "p = 0 and a uniform below 0": (one([A, A], [2], [-1.0, 0.0]), [0, -1], False),
    "u = 0 skips what has no weight": (one([B], [], [0.0]), [2], False),
    "u of nearly 1 stays": (one([A], [], [LAST_UNIFORM]), [1], False),
    "u = 1 stays": (one([A], [], [1.0]), [1], False),
    "u beyond 1 stays": (one([A], [], [7.0]), [1], False),
    "u below 0 stays": (one([B], [], [-1.0]), [2], False),
    "u is NaN": (one([B, B], [2], [NAN, NAN]), [3, -1], False),
    "a uniform of 1 rejects the certain": (one([ONE, ONE], [2], [1.0, 0.5]), [2, -1], False),
    "one token only": (one([[3.0], [3.0]], [0], [LAST_UNIFORM, LAST_UNIFORM]), [0, 0], False),
    "an id of no token": (one([A, A], [4], [0.0, 0.6]), [1, -1], False),
    "a negative id": (one([A, A], [-1], [0.0, 0.6]), [1, -1], False),
    "ids beyond 32 bits": (one([A, A, A], [2**32, 2**32 + 1], [0.0, 0.0, 0.3]), [0, -1, -1], False),
    "an id whose low word is one": (one([A], [-(2**32) + 1], [0.0, 0.3]), [0, -1], False),
    "an id of no token, greedy": (one([A, A], [2**32], [0.0, 0.6], temperature=0.0), [0, -1], False),
    # Drafts that were sampled.
    "q = 0": (one([A, A], [0], [LAST_UNIFORM, 0.7], [B]), [0, 1], False),
    "q = p": (one([A, A], [0], [LAST_UNIFORM, 0.7], [A]), [0, 1], False),
    "q = 2 p, accepted": (one([ALL, A], [0], [0.499, 0.7], [A]), [0, 1], False),
    "q = 2 p, rejected": (one([ALL, A], [0], [0.501, 0.7], [A]), [3, -1], False),
    "residual from its first token": (one([ALL, A], [0], [0.501, 0.0], [A]), [2, -1], False),
    "residual to its last token": (one([ALL, A], [0], [0.501, LAST_UNIFORM], [A]), [3, -1], False),
    "an empty residual": (one([A, A], [0], [1.0, 0.7], [A]), [1, -1], False),
    "an id of no token, full": (one([ALL, A], [9], [0.0, 0.0], [A]), [2, -1], False),
    "a draft row of NaN": (one([A, A], [0], [0.0, 0.7], [[NAN] * 4]), [1, -1], False),
    "a draft row of nothing": (one([A, A], [0], [0.0, 0.7], [[-INF] * 4]), [1, -1], False),
    "the draft's temperature is 1": (
        one([ALL, A], [0], [0.51, 0.5], [[1.0, 1.0, -INF, -INF]], temperature=5.0),
        [3, -1],
        False,
    ),
    # Greedy: the lowest of equals.
    "greedy": (one([[1.0, 3.0, 2.0], [5.0, 4.0, 3.0]], [1], [0.99, 0.99], temperature=0.0), [1, 0], False),
    "greedy, tie won": (one([A, B], [0], [0.9, 0.9], temperature=0.0), [0, 2], False),
    "greedy, tie lost": (one([A, B], [1], [0.0, 0.9], temperature=0.0), [0, -1], False),
    "greedy, coupled": (one([B], [2], [0.9, 0.9], temperature=0.0), [2, -1], True),
    "greedy, direct": (one([B], [2], [0.9, 0.9], temperature=0.0, bonus="direct"), [2, -1], False),
    "greedy, full": (one([A, B], [0], [0.9, 0.9], [B], temperature=0.0), [0, 2], False),
    "greedy, -0.0 and 0.0": (one([[-1.0, -0.0, 0.0]], [], [0.5], temperature=0.0), [1], False),
}


# The interpreter is slow, and dtypes have a test of their own.
@pytest.mark.parametrize("dtype", DTYPES[:1] if INTERPRETED else DTYPES, ids=str)
@pytest.mark.parametrize("name", BY_HAND)
def test_by_hand(name: str, dtype: torch.dtype, target: Target) -> None:
    case, expected, is_coupled = BY_HAND[name]
    case = replace(case, target=case.target.to(dtype), draft=None if case.draft is None else case.draft.to(dtype))
    tokens, counts, coupled = run(case, target)
    assert tokens == [expected] and coupled == [is_coupled]
    assert counts[0] + int(is_coupled) == sum(token >= 0 for token in expected) + int(is_coupled)


@pytest.mark.parametrize("temperature", [0.0, -1.0, NAN, -INF, -0.0])
def test_what_is_not_above_0_is_greedy(temperature: float, target: Target) -> None:
    case = one([[0.0, 1.0, 1.0], [0.0, 0.0, 1.0]], [1], [LAST_UNIFORM, 0.0], temperature=torch.tensor([temperature]))
    assert run(case, target)[0] == [[1, 2]]


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-46, 1e300])
def test_temperatures_that_float32_has_not_are_not_greedy(temperature: float, target: Target) -> None:
    """Among equals a token is drawn, where greedy takes the lowest."""
    for full in (False, True):
        draft = [[0.0] * 4] if full else None
        case = one([[0.0] * 4, [0.0] * 4], [4], [0.5, 0.8], draft, temperature=temperature)
        assert run(case, target)[0] == [[3, -1]]


def test_a_uniform_of_nan_draws_as_one_of_0(target: Target) -> None:
    """Also in which of the chunks."""
    row = torch.zeros(1, 9000)
    row[0, :3] = -INF
    for draft in (None, torch.zeros(1, 0, 9000)):
        case = Case("", row, (0,), torch.zeros(1, 0, dtype=torch.int32), torch.tensor([[NAN]]), draft=draft)
        assert run(case, target)[0] == [[3]]


def test_ties_of_the_argmax_across_chunks(target: Target) -> None:
    vocabulary = 20000
    for first, second in [(8191, 8192), (5, 16384), (8192, 19999), (16383, 16384)]:
        rows = torch.zeros(3, vocabulary)
        rows[:, [first, second]] = 7.0
        for draft_id, tokens in ((first, [first, first, first]), (second, [first, -1, -1])):
            ids = torch.tensor([[draft_id, first]])
            case = Case("", rows, (2,), ids, torch.zeros(1, 3), temperature=0.0)
            assert run(case, target)[0] == [tokens]


@pytest.mark.parametrize("value", [NAN, INF, -INF])
@pytest.mark.parametrize("tokens", [[0], [3], [0, 4], list(range(5))], ids=str)
@pytest.mark.parametrize("full", [False, True], ids=["one-hot", "full"])
def test_broken_rows_emit_some_token(value: float, tokens: list[int], full: bool, target: Target) -> None:
    """And rows beside them are as ever."""
    for temperature, slot in itertools.product((0.0, 1.0), (0, 3) if INTERPRETED else range(4)):
        case = batch("", 2, 2, 5, 3, full, temperature=temperature, lens=(2, 1))
        broken = case.target.clone()
        broken[slot, tokens] = value
        check(replace(case, target=broken), target)


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_a_row_of_nothing_accepts_no_id_of_no_token(temperature: float, target: Target) -> None:
    for draft_id in (-1, 4, 2**32):
        check(one([[-INF] * 4, ALL], [draft_id], [0.0, 0.5], temperature=temperature), target)


@pytest.mark.parametrize("value", [NAN, INF, -INF])
def test_broken_draft_rows(value: float, target: Target) -> None:
    case = batch("", 3, 2, 5, 3, True, lens=(2, 1, 0))
    for tokens in ([0], [3, 4], list(range(5))):
        assert case.draft is not None
        draft = case.draft.clone()
        draft[:, 0, tokens] = value
        check(replace(case, draft=draft), target)


def test_equal_distributions_leave_no_residual(target: Target) -> None:
    """Also over several chunks, where p and q come from the same logits in the same arithmetic."""
    rows = logits(1, 9000, seed=2, spread=4.0)
    grid = torch.tensor([0.0, 0.1, 0.5, 0.77, 0.95, LAST_UNIFORM])
    n = len(grid)
    # A uniform of 1 rejects what nothing else would; the draw is then that of no draft at all.
    uniforms = torch.stack([torch.ones(n), grid], 1)
    case = Case("", rows.expand(n, 9000), (0,) * n, token_ids(n, 1, 9000), uniforms, draft=rows.expand(n, 1, 9000))
    direct = run(replace(case, bonus="direct"), target)
    assert run(case, target) == direct
    assert len({row[0] for row in direct[0]}) > 3
    check(case, target)


def test_values_that_do_not_matter(target: Target) -> None:
    """Padding, drafts that are not tested, uniforms of tests that are not done: whatever they hold."""
    case = batch("", 3, 3, 12, 6, True, lens=(2, 0, -1), draft_lens=(3, 1, 2))
    case = replace(case, target=torch.cat([case.target, logits(4, 12)]))
    assert case.draft is not None
    expected = run(case, target)
    poisoned, draft, ids, uniforms = (t.clone() for t in (case.target, case.draft, case.ids, case.uniforms))
    poisoned[4:] = NAN
    draft[1, 1:], draft[2:] = NAN, INF
    ids[1, 1:], ids[2:] = -7, 2**31 - 1
    uniforms[1, 1:3], uniforms[2:] = NAN, NAN
    other = replace(case, target=poisoned, draft=draft, ids=ids, uniforms=uniforms)
    assert run(other, target) == expected
    assert expected[0][2] == [-1] * 4 and expected[1][2] == 0


GARBAGE = [0, -1, 1, 5, 2**31 - 1, -(2**31), 2**30, 7]


@pytest.mark.parametrize("field", ["request_ids", "cu_seqlens", "lens", "draft_lens"])
@pytest.mark.parametrize("full", [False, True], ids=["one-hot", "full"])
def test_a_layout_that_is_none_stays_in_bounds(field: str, full: bool, target: Target) -> None:
    """No promise but shapes, tokens of the vocabulary, and nothing outside of the tensors."""
    for shift, temperature in itertools.product(range(0, len(GARBAGE), 4 if INTERPRETED else 1), (0.0, 1.0)):
        case = batch("", 5, 3, 9, 2, full, temperature=temperature, lens=(3, 1, 0, 2, 1)).on(target.device)
        packed = case.packed(target.device)
        size = getattr(packed, field).shape[0]
        garbage = torch.tensor((GARBAGE * 3)[shift : shift + size], dtype=torch.int32, device=target.device)
        done = accept(
            case.target,
            packed._replace(**{field: garbage}),
            case.ids,
            case.uniforms,
            draft_logits=case.draft,
            temperature=temperature,
            backend=target.backend,
        )
        counts = done.counts.cpu()
        assert ((counts >= 0) & (counts <= 4)).all()
        assert ((done.tokens >= -1) & (done.tokens < 9)).all()


def test_inputs_are_not_changed(target: Target) -> None:
    case = batch("", 3, 3, 12, 6, True, temperature=torch.tensor([1.0, 0.0, 0.5])).on(target.device)
    names = ("target", "ids", "uniforms", "draft", "temperature")
    before = {name: copy(getattr(case, name), target.device) for name in names}
    packed = case.packed(target.device)
    kept = [t.clone() for t in packed]
    accept(case.target, packed, case.ids, case.uniforms, draft_logits=case.draft, backend=target.backend)
    assert all(torch.equal(getattr(case, name), value) for name, value in before.items())
    assert all(torch.equal(a, b) for a, b in zip(packed, kept, strict=True))


def test_logits_that_need_gradients(target: Target) -> None:
    for dtype in DTYPES:
        case = batch("", 2, 2, 6, 1, True)
        assert case.draft is not None
        case = replace(case, target=case.target.to(dtype), draft=case.draft.to(dtype))
        expected = run(case, target)
        assert case.draft is not None
        moved = replace(case, target=case.target.requires_grad_(), draft=case.draft.requires_grad_()).on(target.device)
        moved = replace(moved, target=moved.target * 1, draft=moved.draft)
        done = moved.accept(target.backend)
        assert tuple(output.tolist() for output in done) == expected
        assert not any(output.requires_grad for output in done)


def test_int32_and_int64_ids_agree(target: Target) -> None:
    for seed in range(5):
        case = batch("", 4, 3, 8, seed, seed % 2 == 0)
        assert run(case, target) == run(replace(case, ids=case.ids.long()), target)
