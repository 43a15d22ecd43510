"""`accept` of every backend against tests/oracle_acceptance.py: the outcomes that float32 may come to, no others."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch
from acceptance_cases import DTYPES, KINDS, LAYOUTS, SHAPES, Case, batch, certainties, check, logits, random_case, run
from cases import Target, whole
from conftest import INTERPRETED, POISON
from oracle_acceptance import is_certain, softmax
from torch import Tensor

from tetris_kernels.types import Accepted

pytestmark = pytest.mark.usefixtures("poisoned")


def check_outputs(done: Accepted, case: Case) -> None:
    """Types, shapes and devices; fresh memory, and nothing written beside it."""
    n, k = case.ids.shape
    assert type(done) is Accepted
    assert [output.shape for output in done] == [(n, k + 1), (n,), (n,)]
    assert [output.dtype for output in done] == [torch.int64, torch.int32, torch.bool]
    storages = [t.untyped_storage().data_ptr() for t in (case.target, case.ids, case.uniforms)]
    for output in done:
        assert type(output) is Tensor and output.device == case.target.device and output.is_contiguous()
        assert output.untyped_storage().data_ptr() not in storages or output.numel() == 0
        storages.append(output.untyped_storage().data_ptr())
        start = output.storage_offset()
        around = torch.cat([whole(output)[:start], whole(output)[start + output.numel() :]])
        assert (around == torch.tensor(POISON).to(output.dtype)).all()


@pytest.mark.parametrize("case", SHAPES + KINDS + LAYOUTS, ids=lambda case: case.name)
def test_named_batches(case: Case, target: Target) -> None:
    check_outputs(check(case, target), case.on(target.device))


@pytest.mark.parametrize("part", range(5))
def test_nearly_certain_drafts(part: int, target: Target) -> None:
    for case in certainties()[part::5]:
        check(case, target)


@pytest.mark.parametrize("part", range(10))
def test_random_batches(part: int, target: Target) -> None:
    count = 4 if INTERPRETED else 300
    for seed in range(part * count, (part + 1) * count):
        check(random_case(seed), target)


def test_the_oracle_is_nearly_always_certain() -> None:
    requests = [request for seed in range(1000) for request in random_case(seed).requests()]
    kept = [r for r in requests if all(softmax(row, 1.0) is not None for row in r.target)]
    assert len(kept) > 0.9 * len(requests)
    assert sum(map(is_certain, kept)) > 0.999 * len(kept)


def test_random_batches_reach_everything() -> None:
    """Each kind of outcome is common: what is drawn, the depth of rejections, coupled bonuses, sitting out."""
    reached: Counter[str] = Counter()
    for seed in range(400):
        case = random_case(seed)
        _, counts, coupled = run(case, Target("torch", "cpu"))
        for request, count, is_coupled in zip(case.requests(), counts, coupled, strict=True):
            lens = len(request.target) - 1
            mode = "full" if request.draft else "one-hot"
            mode += " sampled" if request.temperature > 0 else " greedy"
            end = "sits out" if count == 0 else "coupled" if is_coupled else "all" if count == lens + 1 else "cut"
            reached[f"{mode} {end}"] += 1
    kinds = {
        f"{a} {b} {c}" for a in ("full", "one-hot") for b in ("sampled", "greedy") for c in ("coupled", "all", "cut")
    }
    assert min(reached[kind] for kind in kinds) >= 10, reached


@pytest.mark.parametrize("full", [False, True], ids=["one-hot", "full"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_dtypes(dtype: torch.dtype, full: bool, target: Target) -> None:
    for draft_dtype in DTYPES if full else DTYPES[:1]:
        case = batch(f"{dtype}, {draft_dtype}", 4, 3, 304, 9, full)
        draft = None if case.draft is None else case.draft.to(draft_dtype)
        check(replace(case, target=case.target.to(dtype), draft=draft), target)


def _strided(case: Case) -> list[Case]:
    """The same values in other strides; the vocabulary is a multiple of 16 bytes."""
    target, draft = case.target, case.draft
    assert draft is not None
    capacity, vocabulary = target.shape
    wide = torch.zeros(capacity, vocabulary + 8, dtype=target.dtype)
    wider = torch.zeros(*draft.shape[:2], vocabulary + 1, dtype=target.dtype)
    wide[:, 8:], wider[..., 1:] = target, draft
    misaligned = torch.zeros(target.numel() + 1, dtype=target.dtype)[1:].view(target.shape).copy_(target)
    return [
        replace(case, name="transposed", target=target.T.contiguous().T),
        replace(case, name="drafts first", draft=draft.transpose(0, 1).contiguous().transpose(0, 1)),
        replace(case, name="vocabulary first", draft=draft.permute(2, 0, 1).contiguous().permute(1, 2, 0)),
        replace(case, name="aligned part", target=wide[:, 8:]),
        replace(case, name="misaligned part", target=wide[:, 8:], draft=wider[..., 1:]),
        replace(case, name="misaligned base", target=misaligned),
        replace(case, name="every second", target=torch.stack([target, target * 0], 2).flatten(1)[:, ::2]),
        replace(case, name="reversed ids", ids=torch.stack([case.ids, case.ids], 2)[..., 0]),
        replace(case, name="int64 ids", ids=case.ids.long().T.contiguous().T),
        replace(case, name="uniforms", uniforms=case.uniforms.T.contiguous().T),
    ]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_strides(dtype: torch.dtype, target: Target) -> None:
    case = batch("contiguous", 3, 3, 40, 4, True)
    assert case.draft is not None
    case = replace(case, target=case.target.to(dtype), draft=case.draft.to(dtype))
    expected = run(case, target)
    for other in _strided(case):
        assert run(other, target) == expected, other.name


def test_expanded_logits(target: Target) -> None:
    one, two = logits(1, 16), logits(1, 1, 16, seed=1)
    case = batch("", 4, 3, 16, lens=(3, 2, 3, 0), target=one.expand(14, 16), draft=two.expand(4, 3, 16))
    check(case, target)


@pytest.mark.parametrize("full", [False, True], ids=["one-hot", "full"])
def test_a_request_does_not_depend_on_the_others(full: bool, target: Target) -> None:
    case = batch("", 6, 4, 9000 if INTERPRETED else 40, 11, full, temperature=torch.tensor([1, 0.0, 0.5, 1, 2, 0.8]))
    tokens, counts, coupled = run(case, target)
    assert isinstance(case.temperature, Tensor)
    for r, n in enumerate(case.lens):
        start = case.starts()[r]
        draft = None if case.draft is None else case.draft[r : r + 1]
        rows = {"ids": case.ids[r : r + 1], "uniforms": case.uniforms[r : r + 1], "draft": draft}
        heat = case.temperature[r : r + 1]
        alone = replace(case, target=case.target[start : start + n + 1], lens=(n,), temperature=heat, **rows)
        assert run(alone, target) == (tokens[r : r + 1], counts[r : r + 1], coupled[r : r + 1])


def test_the_number_of_drafts_changes_nothing(target: Target) -> None:
    """More drafts per request, of which none is real, are another shape of the same."""
    case = batch("", 3, 3, 20, 5, True, lens=(3, 1, 2), draft_lens=(3, 3, 3))
    assert case.draft is not None
    tokens, counts, coupled = run(case, target)
    for more in (1, 40):
        ids = torch.nn.functional.pad(case.ids, (0, more))
        uniforms = torch.cat([case.uniforms[:, :3], torch.zeros(3, more), case.uniforms[:, 3:]], 1)
        other = replace(case, ids=ids, uniforms=uniforms, draft=torch.nn.functional.pad(case.draft, (0, 0, 0, more)))
        assert run(other, target) == ([row + [-1] * more for row in tokens], counts, coupled)


@pytest.mark.parametrize("kind", ["direct", "one-hot", "full"])
@pytest.mark.parametrize("vocabulary", [7, 9000])
def test_draws_have_the_frequencies_of_their_distribution(kind: str, vocabulary: int, target: Target) -> None:
    """On a grid of n uniforms each token comes as often as its part of the whole says, to within two."""
    n = 40 if INTERPRETED else 200
    lens, bonus = ((0,), "direct") if kind == "direct" else ((1,), "coupled")
    p, q = logits(1, vocabulary, seed=3, spread=3.0), logits(1, 1, vocabulary, seed=4, spread=3.0)
    p[0, ::5] = -torch.inf
    draft_id = int((q[0, 0].softmax(-1) - p[0].softmax(-1)).argmax())
    rest = p[0].double().softmax(-1)
    if kind == "one-hot":
        draft_id = int(p[0].argmax())
        rest[draft_id] = 0
    if kind == "full":
        rest = (rest - q[0, 0].double().softmax(-1)).clamp(min=0)
    # A uniform of nearly 1 rejects the draft; the other column is the grid.
    uniforms = torch.stack([torch.full((n,), 0.999999), (torch.arange(n) + 0.5) / n], 1)
    case = Case(
        kind,
        p.expand(n * (1 + lens[0]), vocabulary),
        lens * n,
        torch.full((n, 1), draft_id),
        uniforms,
        draft=q.expand(n, 1, vocabulary) if kind == "full" else None,
        bonus=bonus,
    )
    tokens, counts, _ = run(case, target)
    assert counts == [1] * n
    drawn = [row[0] for row in tokens]
    assert drawn == sorted(drawn)
    came = torch.bincount(torch.tensor(drawn), minlength=vocabulary)
    assert ((came - rest / rest.sum() * n).abs() < 1.01).all()
    assert (came[rest == 0] == 0).all()
