"""`score` of every backend against the plain Python of tests/oracle_scoring.py, within its derived bound."""

from __future__ import annotations

import math
from typing import Any

import oracle_scoring as oracle
import pytest
import torch
from cases import INF, NAN, Target, whole
from conftest import INTERPRETED, POISON
from scoring_cases import (
    CASES,
    DTYPES,
    KINDS,
    LAYOUTS,
    RAGGED,
    SHORT,
    Case,
    batch,
    drawn,
    masked,
    misaligned,
    near_certain,
    normal,
    plateau,
)
from torch import Tensor

from tetris_kernels import backend, score
from tetris_kernels.reference import scoring as reference

pytestmark = pytest.mark.usefixtures("poisoned")


def check(found: Tensor, exact: list[list[float]], kind: str) -> None:
    for ours, theirs in zip(found.tolist(), exact, strict=True):
        for x, y in zip(ours, theirs, strict=True):
            if math.isfinite(y):
                assert abs(x - y) <= oracle.tolerance(y, kind), (x, y)
                assert x <= oracle.tolerance(0, kind)
            else:
                assert x == y or (math.isnan(x) and math.isnan(y)), (x, y)


def check_output(scores: Tensor, case: Case) -> None:
    """Type, shape and device; fresh memory, and nothing written beside it."""
    assert type(scores) is Tensor and scores.dtype == torch.float32 and scores.device == case.logits.device
    assert scores.shape == case.ids.shape and scores.is_contiguous()
    storages = [t.untyped_storage().data_ptr() for t in case.tensors.values()]
    assert scores.untyped_storage().data_ptr() not in storages or scores.numel() == 0


def bits(scores: Tensor) -> Tensor:
    """What NaN equals too; all NaN are one."""
    return scores.nan_to_num(nan=7.0, posinf=INF, neginf=-INF).contiguous().view(torch.int32)


def run(case: Case, target: Target, kind: str = "token") -> Tensor:
    moved = case.on(target.device)
    return score(moved.logits, moved.ids, kind=kind, **moved.options, backend=target.backend)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_named_cases(case: Case, kind: str, target: Target) -> None:
    moved = case.on(target.device)
    scores = score(moved.logits, moved.ids, kind=kind, **moved.options, backend=target.backend)
    check(scores, case.expected(kind), kind)
    check_output(scores, moved)
    for name, given in case.tensors.items():
        assert torch.equal(whole(given).view(torch.uint8), whole(moved.tensors[name]).cpu().view(torch.uint8)), name


def test_nothing_is_written_beside_the_scores(triton_target: Target) -> None:
    for case in (batch("", 5, 3, 7), batch("", 1, 1, 8193), batch("", 70, 1, 3)):
        scores = run(case, triton_target)
        start = scores.storage_offset()
        around = torch.cat([whole(scores)[:start], whole(scores)[start + scores.numel() :]])
        assert (around == POISON).all() and start > 0


LARGE = [
    ("normal", lambda v: normal(1, 1, v, seed=v)),
    ("far from 0", lambda v: normal(1, 1, v, seed=v) * 0.1 + 1e4),
    ("all equal", lambda v: torch.full((1, 1, v), -7.5)),
    ("a plateau", lambda v: plateau(v, 1.2)),
    ("a plateau of half of the probability", lambda v: plateau(v, math.log(v))),
    ("a plateau of nearly all of the probability", lambda v: plateau(v, math.log(v) - 2)),
    ("near-certain", lambda v: near_certain(v, 30.0)[:, :1]),
    ("twenty tokens", lambda v: masked(1, 1, v, 20)),
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("name", "make"), LARGE, ids=[name for name, _ in LARGE])
def test_large_vocabularies(name: str, make: Any, dtype: torch.dtype, kind: str, target: Target) -> None:
    if INTERPRETED and dtype != torch.float32 and name not in ("normal", "near-certain"):
        sizes = [(9000, 1.0)]
    else:
        sizes = [(262144, 1.0)] if INTERPRETED else [(50257, 0.01), (151936, 0.7), (151936, 100.0), (262144, 1.0)]
    for v, temperature in sizes:
        logits = make(v).to(dtype)
        check(*within(Case(name, logits, drawn(1, 1, v), temperature), kind, target), kind)


def within(case: Case, kind: str, target: Target) -> tuple[Tensor, list[list[float]]]:
    return run(case, target, kind), case.expected(kind)


@pytest.mark.parametrize("kind", KINDS)
def test_random_batches(kind: str, target: Target) -> None:
    for seed in range(8 if INTERPRETED else 100):
        v = (5, 64, 333, 9001)[seed % 4]
        temperature = (1.0, torch.linspace(-0.5, 3, 4), 0.3)[seed % 3]
        case = Case(
            f"seed {seed}", normal(4, 3, v, seed, spread=1.0 + seed % 7), drawn(4, 3, v, seed), temperature, RAGGED[:4]
        )
        check(*within(case, kind, target), kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("v", [24, 8193, 16400])
def test_a_row_scores_the_same_everywhere(v: int, dtype: torch.dtype, kind: str, target: Target) -> None:
    """Bit for bit: alone, elsewhere in a batch, in a larger one, and with other strides and alignment."""
    if target == Target("torch", "cuda"):
        pytest.skip("torch's reductions on a GPU go by the number of rows")
    logits, ids = normal(3, 2, v, seed=3).to(dtype), drawn(3, 2, v)
    temperature = torch.tensor([0.7, 1.0, 1.3])
    expected = bits(run(Case("", logits, ids, temperature), target, kind).cpu())

    def scores(x: Tensor, n: Any = slice(None), k: Any = slice(None)) -> Tensor:
        return bits(run(Case("", x, ids[n, k].reshape(x.shape[:2]), temperature[n]), target, kind).cpu())

    for n in range(3):
        assert torch.equal(scores(logits[n : n + 1], slice(n, n + 1)), expected[n : n + 1])
        assert torch.equal(scores(logits[n : n + 1, 1:].clone(), slice(n, n + 1), slice(1, 2)), expected[n : n + 1, 1:])
    assert torch.equal(scores(logits.flip(0), [2, 1, 0]), expected.flip(0))
    assert torch.equal(scores(logits.repeat(3, 1, 1), [0, 1, 2] * 3), expected.repeat(3, 1))
    wide = torch.cat([logits, torch.full_like(logits[..., :3], NAN)], 2)
    if target.backend == "triton":  # torch's sums go by the strides
        assert torch.equal(scores(wide[..., :v]), expected)
        assert torch.equal(scores(misaligned(logits)), expected)
        assert torch.equal(scores(logits.permute(2, 0, 1).contiguous().permute(1, 2, 0)), expected)


@pytest.mark.parametrize("kind", KINDS)
def test_temperatures_of_the_host_and_of_requests_agree(kind: str, target: Target) -> None:
    case = batch("", 3, 2, 8200)
    for t in (0.0, 0.3, 1.0, 2.5):
        of_host = run(Case("", case.logits, case.ids, t), target, kind)
        of_each = run(Case("", case.logits, case.ids, torch.full((3,), t)), target, kind)
        # 1 / temperature is rounded once more or less.
        check(of_each, of_host.tolist(), kind)
    one = run(Case("", case.logits, case.ids, 1.0), target, kind)
    for nothing in (0.0, torch.zeros(3), torch.tensor([-1.0, NAN, -0.0])):
        assert torch.equal(run(Case("", case.logits, case.ids, nothing), target, kind), one)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_beyond_the_draft_lens_matters(kind: str, target: Target) -> None:
    case = batch("", 7, 3, 8200, draft_lens=RAGGED)
    expected = run(case, target, kind)
    unreal = torch.arange(3) >= RAGGED[:, None]
    for value in (NAN, INF, -INF, 3e38):
        logits = torch.where(unreal[:, :, None], value, case.logits)
        ids = torch.where(unreal, -5, case.ids)
        assert torch.equal(run(Case("", logits, ids, 1.0, RAGGED), target, kind), expected)
    assert torch.equal(expected.cpu() == -INF, unreal)


def test_gradients_do_not_flow(target: Target) -> None:
    case = batch("", 2, 2, 9).on(target.device)
    scores = score(case.logits.requires_grad_(), case.ids, backend=target.backend)
    assert not scores.requires_grad


def test_triton_agrees_with_torch(triton_target: Target) -> None:
    case = batch("", 4, 3, 20000, draft_lens=RAGGED[:4])
    for kind in KINDS:
        theirs = run(case, Target("torch", triton_target.device), kind)
        check(run(case, triton_target, kind), theirs.tolist(), kind)


def test_triton_refuses_larger_vocabularies_and_auto_takes_torch(triton_target: Target) -> None:
    case = Case("", torch.zeros(1, 1, 262145), drawn(1, 1, 9))
    with pytest.raises(
        ValueError, match=r"a vocabulary of up to 262144 tokens, got 262145; 'auto' and 'torch' take it"
    ):
        run(case, triton_target)
    assert run(case, Target("auto", triton_target.device)).isfinite().all()


def test_auto_is_torch_on_the_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backend, "triton_kernels", lambda stage: pytest.fail("Triton was asked for"))
    assert backend.implementation("scoring", "auto", torch.device("cpu"), 9) is reference
    case = batch("", 2, 2, 9)
    check(score(case.logits, case.ids), case.expected("token"), "token")


def test_aligned_means_whole_pieces_of_16_bytes() -> None:
    kernels = pytest.importorskip("tetris_kernels.kernels.launching")
    aligned = {case.name for case in CASES if case.logits.numel() and kernels.is_wide(case.logits)}
    assert {"drafts first", "two chunks", "every second row", "overlapping rows", "bfloat16, drafts first"} <= aligned
    for case in LAYOUTS + SHORT:
        x = case.logits
        whole_pieces = x.stride(2) == 1 and x.shape[2] * x.element_size() % 16 == 0
        # An interpreter loads from any address; a GPU's vector load does not.
        starts = [x[n, k].data_ptr() % 16 for n in range(x.shape[0]) for k in range(x.shape[1])]
        assert (case.name in aligned) <= (whole_pieces and not any(starts)), case.name
    assert not {"misaligned rows", "misaligned base", "float16, rows of pieces of 8 bytes"} & aligned
    assert not {"every second token", "one token for all", "float16, vocabulary of pieces of 8 bytes"} & aligned
