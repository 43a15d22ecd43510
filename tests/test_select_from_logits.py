"""`select_from_logits` of every backend: bit for bit what `score` and then `select` return, and the oracle's order."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import oracle
import pytest
import torch
from cases import BUDGETS, EXTREMES, INF, NAN, Target, certain, copy, lens, random_case, whole
from conftest import INTERPRETED, POISON
from scoring_cases import CASES, KINDS, RAGGED, Case, batch, drawn, masked, normal
from torch import Tensor

from tetris_kernels import Selection, score, select, select_from_logits

pytestmark = pytest.mark.usefixtures("poisoned")


def bits(scores: Tensor) -> list[int]:
    """NaN too; all NaN are one."""
    return scores.masked_fill(scores.isnan(), NAN).cpu().flatten().view(torch.int32).tolist()


def check(case: Case, kind: str, budget: Any, target: Target, **preferences: Tensor) -> tuple[Selection, Tensor]:
    """`case` and the rest are on the target's device."""
    options: dict[str, Any] = {"kind": kind, **case.options, "backend": target.backend}
    picked, scores = select_from_logits(case.logits, case.ids, budget, **options, **preferences)
    expected = score(case.logits, case.ids, **options)
    assert bits(scores) == bits(expected)
    selection = select(expected, budget, draft_lens=case.draft_lens, **preferences, backend=target.backend)
    assert picked.lens.tolist() == selection.lens.tolist() and picked.cu_lens.tolist() == selection.cu_lens.tolist()
    return picked, scores


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_named_cases(case: Case, target: Target) -> None:
    moved = case.on(target.device)
    entries = case.ids.numel()
    for kind in KINDS if not INTERPRETED else [KINDS[len(case.name) % 3]]:
        for budget in sorted({0, entries // 2, entries}) if not INTERPRETED else [entries // 2]:
            check(moved, kind, budget, target)


def test_outputs(target: Target) -> None:
    for case in (batch("", 5, 3, 9), batch("", 1, 4, 8193), batch("", 0, 3, 9), batch("", 3, 0, 9)):
        moved = case.on(target.device)
        picked, scores = check(moved, "token", 3, target)
        assert type(picked) is Selection
        n, k = case.ids.shape
        assert [tuple(t.shape) for t in (*picked, scores)] == [(n,), (n + 1,), (n, k)]
        assert [t.dtype for t in (*picked, scores)] == [torch.int32, torch.int32, torch.float32]
        storages = [t.untyped_storage().data_ptr() for t in moved.tensors.values()]
        for output in (*picked, scores):
            assert output.device == moved.logits.device and output.is_contiguous()
            assert output.untyped_storage().data_ptr() not in storages or output.numel() == 0
            storages.append(output.untyped_storage().data_ptr())
        for name, given in case.tensors.items():
            assert torch.equal(given, moved.tensors[name].cpu())


def test_nothing_is_written_beside_the_outputs(triton_target: Target) -> None:
    for case in (batch("", 5, 3, 9), batch("", 25, 8, 3), batch("", 3, 16, 3), batch("", 256, 1, 3)):
        picked, scores = check(case.on(triton_target.device), "token", 30, triton_target)
        for output in (*picked, scores):
            start = output.storage_offset()
            around = torch.cat([whole(output)[:start], whole(output)[start + output.numel() :]])
            assert (around == POISON).all() and start > 0


@pytest.mark.parametrize("kind", BUDGETS)
def test_what_a_budget_can_be(kind: str, target: Target) -> None:
    case = batch("", 7, 3, 9, draft_lens=RAGGED).on(target.device)
    for value in (0, 4, 1000):
        check(case, "top", BUDGETS[kind](value, target.device), target)


@pytest.mark.parametrize("value", [-1, -(2**31), 2**31, 2**32 + 1, -(2**32) + 5, 2**63 - 1, -(2**63)])
def test_device_budgets_are_clamped(value: int, target: Target) -> None:
    case = batch("", 7, 3, 9, draft_lens=RAGGED).on(target.device)
    check(case, "token", torch.tensor([7, value, 7], device=target.device)[1:2], target)


def test_preferences(target: Target) -> None:
    """Those of the random cases of select, with their lens in both roles."""
    for seed in range(10 if INTERPRETED else 200):
        of_select = random_case(seed, 9, 9)
        n, k = of_select.logprobs.shape
        rows = {name: copy(t, target.device) for name, t in of_select.rows.items()}
        draft_lens = rows.pop("draft_lens", None)
        v = 8 + seed % 5
        temperature = torch.linspace(0, 2, n) if seed % 2 else 0.5
        case = Case("", normal(n, k, v, seed), drawn(n, k, v, seed), temperature).on(target.device)
        budget = random.Random(seed).randrange(n * k + 2)
        check(replace(case, draft_lens=draft_lens), KINDS[seed % 3], budget, target, **rows)


def test_extreme_lens(target: Target) -> None:
    extreme = lens(EXTREMES, torch.int64).to(target.device)
    case = batch("", 12, 4, 8).on(target.device)
    check(replace(case, draft_lens=extreme), "token", 9, target, min_lens=extreme.roll(5), max_lens=extreme.roll(7))


def test_weights(target: Target) -> None:
    case = batch("", 5, 3, 9).on(target.device)
    for weights in ([0.7, -0.7, 0.0, 2.5, -3.0], [NAN, INF, -INF, 0.0, -0.0], [400.0, 400.0, 500.0, -500.0, -600.0]):
        log_weights = torch.tensor(weights, device=target.device)
        for budget in (2, 7, 11):
            check(case, "token", budget, target, log_weights=log_weights)


def test_ties_and_tokens_that_cannot_be(target: Target) -> None:
    tied = Case("", torch.zeros(6, 4, 8), drawn(6, 4, 8))
    never = Case("", masked(6, 4, 8, 1), torch.zeros(6, 4, dtype=torch.int64))
    for case in (tied, never):
        for budget in (1, 7, 20, 23):
            picked, scores = check(case.on(target.device), "token", budget, target)
            keys = oracle.batch_keys(scores.tolist())
            assert picked.lens.tolist() == oracle.greedy(keys, budget)


# The last row and draft of each bucket, what is just beyond, and the most states that a program reads.
SIZES = [(64, 8, 5), (64, 16, 5), (256, 8, 5), (65, 8, 16), (64, 9, 5), (65, 9, 5), (257, 2, 5), (300, 20, 2)]
SIZES += [(1, 8, 8193), (17, 2, 9000), (256, 1, 5), (18, 16, 5), (37, 8, 5), (1, 17, 5)]


# A program a draft: the interpreter takes a minute for a full bucket.
@pytest.mark.parametrize(("n", "k", "v"), [s for s in SIZES if not INTERPRETED or s[0] * s[1] < 300])
def test_sizes(n: int, k: int, v: int, target: Target) -> None:
    lengths = torch.arange(n) % (k + 2)
    for kind, draft_lens in (("token", None), ("collision", lengths)):
        case = Case("", normal(n, k, v, seed=n), drawn(n, k, v), 1.0, draft_lens).on(target.device)
        picked, scores = check(case, kind, n * k // 3, target)
        keys = oracle.batch_keys(scores.tolist(), draft_lens=None if draft_lens is None else draft_lens.tolist())
        assert picked.lens.tolist() == oracle.greedy(keys, n * k // 3)


def test_a_cut_beyond_what_float32_tells_apart(target: Target) -> None:
    logits = torch.zeros(4, 8, 4)
    logits[:, :5, 0] = -INF
    logits[:, 5:] = certain(4, 12).view(4, 3, 4) * 1e-3
    case = Case("", logits, torch.zeros(4, 8, dtype=torch.int64)).on(target.device)
    for budget in range(20, 32, 3):
        check(case, "token", budget, target)


def test_triton_and_torch_take_the_same_where_no_scores_are_close(triton_target: Target) -> None:
    ranks = torch.randperm(40, generator=torch.Generator().manual_seed(3)).view(8, 5)
    logits = torch.zeros(8, 5, 9)
    logits[:, :, 2] = ranks * 0.05
    case = Case("", logits, torch.full((8, 5), 2)).on(triton_target.device)
    for budget in (3, 11, 30):
        ours, _ = check(case, "token", budget, triton_target)
        theirs, _ = check(case, "token", budget, Target("torch", triton_target.device))
        assert torch.equal(ours.lens, theirs.lens)


def test_what_is_fused() -> None:
    kernels = pytest.importorskip("tetris_kernels.kernels.scoring")
    assert kernels.MAX_STATES == 16384
    for n, k, v, fused in [
        (64, 8, 262144, True),
        (64, 8, 262145, False),
        (64, 16, 131072, True),
        (64, 16, 131073, False),
        (256, 8, 65536, True),
        (256, 8, 65537, False),
        (257, 1, 9, False),
        (1, 17, 9, False),
        (65, 9, 9, False),
        (0, 8, 9, False),
        (8, 0, 9, False),
        (1, 1, 1, True),
    ]:
        assert kernels.fuses(n, k, v) is fused, (n, k, v)
    assert any(kernels.fuses(*size) for size in SIZES) and not all(kernels.fuses(*size) for size in SIZES)


def test_triton_refuses_what_either_stage_refuses(triton_target: Target) -> None:
    device = triton_target.device
    with pytest.raises(ValueError, match="expected a vocabulary of up to 262144 tokens, got 262145"):
        select_from_logits(torch.zeros(1, 1, 262145, device=device), drawn(1, 1, 9).to(device), 1, backend="triton")
    tokens, none = torch.zeros(4097, 1, dtype=torch.int64, device=device), torch.zeros(4097, dtype=torch.int64)
    with pytest.raises(ValueError, match="expected a batch that one program holds"):
        # No draft is real, which spares the interpreter the scores.
        select_from_logits(tokens[:, :, None].float(), tokens, 1, draft_lens=none.to(device), backend="triton")
