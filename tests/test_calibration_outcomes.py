"""Which drafts calibration counts as tested, and as accepted: by hand, by loops, and through the real `accept`."""

from __future__ import annotations

import math

import oracle_calibration as oracle
import pytest
import torch
from calibration_cases import EDGES, columns, counted, random_rows
from oracle_calibration import Row

from tetris_kernels import Calibration, Selection, accept, pack, score, select

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize("bonus", ["coupled", "direct"])
@pytest.mark.parametrize(
    ("length", "draft_length", "count", "coupled", "expected"),
    [
        (3, 4, 0, False, {}),  # sat out
        (0, 0, 1, False, {}),  # no draft
        (3, 4, 1, False, {0: 0}),
        (3, 4, 2, False, {0: 1, 1: 0}),
        (3, 4, 3, False, {0: 1, 1: 1, 2: 0}),
        (3, 4, 4, False, {0: 1, 1: 1, 2: 1, "next": 0}),
        (3, 4, 4, True, {0: 1, 1: 1, 2: 1, "next": 1}),
        (3, 3, 4, False, {0: 1, 1: 1, 2: 1}),  # a bonus token, nothing was tested there
        (4, 4, 5, False, {0: 1, 1: 1, 2: 1, 3: 1}),
        (0, 4, 1, True, {"next": 1}),
        (0, 4, 1, False, {"next": 0}),
        (0, 1, 1, True, {"next": 1}),
    ],
)
def test_what_is_tested(bonus, length, draft_length, count, coupled, expected):
    """A table by hand: 1 was accepted, 0 rejected."""
    if bonus == "direct" and coupled:
        coupled, expected = False, {**expected, "next": 0}
    expected = {length if j == "next" else j: a for j, a in expected.items() if j != "next" or bonus == "coupled"}
    row = Row([-0.1, -0.2, -0.3, -0.4], length, count, coupled, draft_length)
    assert {j: a for j, _, a in oracle.tested(row, bonus)} == expected
    calibration = Calibration(4, half_life=INF)
    calibration.update(**columns([row]), kind="token", bonus=bonus)
    found = calibration.state_dict()["counts"].sum(2).long().tolist()
    assert found == [[int(expected.get(j) == accepted) for j in range(4)] for accepted in (0, 1)]


@pytest.mark.parametrize("bonus", ["coupled", "direct"])
@pytest.mark.parametrize("dtype", [torch.int32, torch.int64], ids=str)
@pytest.mark.parametrize(("seed", "num_rows", "num_drafts"), [(0, 1, 1), (1, 40, 5), (2, 200, 8), (3, 7, 0), (4, 0, 3)])
def test_counts_are_those_of_loops(seed, num_rows, num_drafts, dtype, bonus):
    rows = random_rows(seed, num_rows, num_drafts)
    step = columns(rows, torch.tensor([row.scores for row in rows]).view(num_rows, num_drafts))
    step |= {name: step[name].to(dtype) for name in ("lens", "draft_lens")}
    # More positions than there are drafts.
    calibration = Calibration(num_drafts + 2, half_life=INF)
    calibration.update(**step, kind="token", bonus=bonus)
    assert calibration.state_dict()["counts"].tolist() == counted(rows, num_drafts + 2, bonus)


def test_counts_of_extreme_scores_and_none_of_nan():
    """NaN is no score, but the drafts behind it have theirs."""
    rows = [Row([x, -0.5], 2, count, False, 2) for x in EDGES for count in (1, 2, 3)]
    calibration = Calibration(2, half_life=INF)
    calibration.update(**columns(rows), kind="token")
    assert calibration.state_dict()["counts"].tolist() == counted(rows, 2)
    of_nan = Calibration(2, half_life=INF)
    of_nan.update(**columns([Row([NAN, -0.5], 2, count, False, 2) for count in (1, 2, 3)]), kind="token")
    assert of_nan.state_dict()["counts"].sum(2).tolist() == [[0, 1], [0, 1]]


def test_no_draft_lens_means_all():
    rows = [row._replace(draft_length=5) for row in random_rows(5, 30, 5)]
    step = columns(rows)
    one, other = Calibration(5), Calibration(5)
    one.update(**step, kind="token")
    other.update(**{name: value for name, value in step.items() if name != "draft_lens"}, kind="token")
    assert torch.equal(one.state_dict()["counts"], other.state_dict()["counts"])


@pytest.mark.parametrize("bonus", ["coupled", "direct"])
@pytest.mark.parametrize("draw", [False, True], ids=["one-hot", "drawn"])
def test_what_the_real_accept_returns_is_counted_right(bonus, draw):
    """Against each draft's own test, u * q < p, done for all of them."""
    generator = torch.Generator().manual_seed(4)
    num_requests, num_drafts, vocabulary = 160, 4, 3
    q = torch.randn(num_requests, num_drafts, vocabulary, generator=generator)
    ids = q.softmax(-1).view(-1, vocabulary).multinomial(1, generator=generator).view(num_requests, num_drafts)
    draft_lens = torch.randint(num_drafts + 1, (num_requests,), generator=generator)
    context = torch.randint(-1, 6, (num_requests,), generator=generator)
    scores = score(q, ids, draft_lens=draft_lens)
    lens = select(scores, 220, draft_lens=draft_lens).lens
    capacity = num_requests * (num_drafts + 1)
    packed = pack(Selection.from_lens(lens), ids, ids[:, 0], context, capacity=capacity, draft_lens=draft_lens)
    # The target's logits by request and position, for slots that are there.
    target = 2 * torch.randn(num_requests, num_drafts + 1, vocabulary, generator=generator)
    request = packed.request_ids.clamp(min=0).long()
    slot = torch.arange(capacity) - packed.cu_seqlens[request]
    uniforms = torch.rand(num_requests, num_drafts + 1, generator=generator)
    accepted = accept(
        target[request, slot.clamp(0, num_drafts)], packed, ids, uniforms, draft_logits=q if draw else None, bonus=bonus
    )
    p_of, q_of = (x.softmax(-1)[:, :num_drafts].gather(2, ids[:, :, None])[:, :, 0] for x in (target, q))
    passes = (uniforms[:, :-1] * (q_of if draw else 1.0) < p_of).tolist()
    expected = [[0] * num_drafts for _ in range(2)]
    for r in range(num_requests):
        for j in range(min(int(lens[r]) + (bonus == "coupled"), int(draft_lens[r])) if context[r] >= 0 else 0):
            expected[passes[r][j]][j] += 1
            if not passes[r][j]:
                break
    calibration = Calibration(num_drafts, half_life=INF)
    calibration.update(
        scores, packed.lens, accepted.counts, accepted.coupled, kind="token", draft_lens=draft_lens, bonus=bonus
    )
    assert calibration.state_dict()["counts"].sum(2).tolist() == expected
    assert min(sum(expected[0]), sum(expected[1])) > 20, "both happen"
