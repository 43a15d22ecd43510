"""The stages emit what the target alone would, by count: a short form of `tetris-decode lossless`."""

from __future__ import annotations

import io
import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
from rich.console import Console

from tetris_decode import lossless
from tetris_decode.lossless import (
    REJECTED,
    WAYS,
    Report,
    Settings,
    budgets,
    chains,
    compare,
    emit,
    make_preferences,
    propose,
    request_law,
    run,
)
from tetris_decode.lossless_report import document, table
from tetris_kernels import select

NAMES = [way.name for way in WAYS]
BIASED = WAYS[-1]


@pytest.fixture(scope="module")
def report() -> Report:
    return run(Settings(batches=600))


@pytest.mark.parametrize("name", NAMES)
def test_every_way_is_as_expected(report, name):
    result = report.results[NAMES.index(name)]
    assert report.is_as_expected(result), result


def test_the_biased_way_is_rejected_by_orders_of_magnitude(report):
    assert [result.way for result in report.results if not result.way.lossless] == [BIASED]
    assert report.results[-1].each.p_value < REJECTED and report.results[-1].joint.p_value < REJECTED
    # Only the bonus differs from a way that is lossless on the same models.
    assert replace(BIASED, name="", bonus="coupled", lossless=True) in [replace(way, name="") for way in WAYS]


def test_the_report_holds_only_if_every_way_is_as_expected(report):
    assert report.holds
    biased, fits = report.results[-1], report.results[:-1]
    for i, result in enumerate(fits):
        for wrong in (replace(result, each=biased.each), replace(result, joint=biased.joint)):
            assert not replace(report, results=(*fits[:i], wrong, *fits[i + 1 :], biased)).holds
    unseen = replace(biased, each=fits[0].each, joint=fits[0].joint)
    assert not replace(report, results=(*fits, unseen)).holds


def test_a_slightly_wrong_target_is_seen():
    way = next(way for way in WAYS if way.name == "token, coupled")
    target, drafter = chains(way.vocabulary)
    tokens = emit(way, target, drafter, 1000, torch.Generator().manual_seed(1))
    assert compare(way, target, tokens).each.holds(1e-5)
    # One logit of 18.
    target[1, 0, 0] += 0.8
    assert not compare(way, target, tokens).each.holds(1e-5)


def test_requests_that_follow_each_other_are_seen():
    way = next(way for way in WAYS if way.name == "token, coupled")
    target, drafter = chains(way.vocabulary)
    tokens = emit(way, target, drafter, 1000, torch.Generator().manual_seed(1))
    # The batches in another order for request 1 change no request's own law.
    order = tokens[:, 0, 0].argsort(stable=True)
    inverse = tokens[:, 1, 0].argsort(stable=True)
    tokens[order, 1] = tokens[inverse, 1]
    result = compare(way, target, tokens)
    assert result.each.holds(1e-5) and not result.joint.holds(1e-5)


@pytest.mark.parametrize("temperature", [0.0, 0.7, (1.0, 0.0, 2.0)])
def test_the_law_is_that_of_a_plain_loop(temperature):
    way = replace(WAYS[0], temperature=temperature)
    target, _ = chains(3)
    for request in range(3):
        t = temperature[request] if isinstance(temperature, tuple) else temperature
        law = request_law(way, target, request, 3)
        for tokens, p in zip(itertools.product(range(3), repeat=3), law.tolist(), strict=True):
            expected = 1.0
            for i, (before, token) in enumerate(itertools.pairwise((request, *tokens))):
                row = target[i % 2, before].tolist()
                if t:
                    expected *= math.exp(row[token] / t) / sum(math.exp(x / t) for x in row)
                else:
                    expected *= row[token] == max(row)
            assert p == pytest.approx(expected, rel=1e-9)


def test_select_sees_one_batch_at_a_time(monkeypatch):
    seen = []

    def spy(scores, budget, **rows):
        selection = select(scores, budget, **rows)
        assert int(selection.lens.sum()) <= budget
        seen.append((tuple(scores.shape), budget, {name: tuple(x.shape) for name, x in rows.items()}))
        return selection

    monkeypatch.setattr(lossless, "select", spy)
    way = next(way for way in WAYS if way.name == "token, coupled, preferences")
    tokens = emit(way, *chains(way.vocabulary), 20, torch.Generator().manual_seed(0))
    assert tokens.shape == (20, way.requests, way.length)
    assert len(seen) == 20 * way.length
    assert {shape for shape, _, _ in seen} == {(way.requests, way.drafts)}
    assert len({budget for _, budget, _ in seen}) > 1
    names = ("draft_lens", "min_lens", "max_lens", "log_weights")
    assert seen[0][2] == {name: (way.requests,) for name in names}


def test_the_ways_cut_requests():
    # Else nothing would be at stake.
    for way in WAYS:
        _, drafter = chains(way.vocabulary)
        request = torch.arange(way.requests).repeat(50)
        lens = torch.zeros_like(request)
        ids, logits = propose(way, drafter, request % way.vocabulary, lens, torch.Generator().manual_seed(0))
        scores = lossless.score(logits, ids, kind=way.kind, temperature=way.draft_temperature)
        preferences = make_preferences(way, request, lens)
        kept = lossless.select_batches(scores, budgets(way, scores, lens), preferences).lens
        cut = kept < preferences.get("draft_lens", torch.tensor(way.drafts))
        assert float(cut.float().mean()) > 0.3 and kept.any(), way.name


def test_budgets():
    scores = torch.tensor([[0.6, 0.9, 0.9], [0.9, 0.8, 0.7], [0.49, 1.0, 1.0]]).log()
    lens = torch.tensor([1, 2, 3])
    assert budgets(replace(BIASED, budget=5), scores.repeat(2, 1), lens.repeat(2)) == [5, 5]
    assert budgets(replace(BIASED, budget="threshold"), scores, lens) == [2 + 3 + 0]
    assert budgets(replace(BIASED, budget="earlier"), scores, lens) == [1 + 6 % 5]


def test_greedy_drafts_follow_the_drafter():
    way = next(way for way in WAYS if way.greedy_drafts)
    _, drafter = chains(way.vocabulary)
    ids, logits = propose(way, drafter, torch.tensor([0, 2]), torch.tensor([0, 1]), torch.Generator())
    for r, (anchor, position) in enumerate([(0, 0), (2, 1)]):
        for j in range(way.drafts):
            row = drafter[(position + j) % 2, anchor]
            assert torch.equal(logits[r, j], row)
            anchor = int(row.argmax())
            assert int(ids[r, j]) == anchor


def test_runs_tell_their_names_and_repeat(report):
    told: list[str] = []
    again = run(Settings(batches=2), told.append)
    assert told == NAMES
    assert again.results == run(Settings(batches=2)).results != run(Settings(batches=2, seed=1)).results


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (Settings(batches=0), "batches: expected 1 or more, got 0"),
        (Settings(seed=-1), "seed: expected 0 or more, got -1"),
    ],
)
def test_wrong_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        run(settings)


def printed(report: Report) -> str:
    console = Console(width=100, file=io.StringIO(), highlight=False)
    console.print(table(report))
    return console.file.getvalue()  # type: ignore[attr-defined]


def test_the_table_has_a_line_for_each_way(report):
    text = printed(report)
    lines = text.splitlines()
    for result in report.results:
        line = next(line for line in lines if line.startswith(f" {result.way.name} "))
        assert f" {result.each.p_value:.2g} " in line and f" {100 * result.joint.variation:.2f} (" in line
        assert line.rstrip().endswith("lossless" if result.way.lossless else "biased")
    assert "600 batches" in text and "below 1e-12" in text
    assert lines[-1].endswith("As it must be.")


def test_the_table_says_what_is_wrong(report):
    wrong = replace(report.results[0], each=report.results[-1].each)
    wrong = replace(wrong, joint=replace(wrong.joint, p_value=0.0))
    text = printed(replace(report, results=(wrong, *report.results[1:])))
    assert " < 1e-300 " in text
    assert text.count("not as it must be") == 1
    assert text.rstrip().endswith("NOT as it must be.")


def test_the_document_is_json(report):
    shown = json.loads(json.dumps(document(report)))
    assert shown["holds"] is True and shown["settings"] == {"batches": 600, "seed": 0}
    assert [r["way"]["name"] for r in shown["results"]] == NAMES
    assert all(r["as_expected"] for r in shown["results"])
    assert shown["results"][-1]["each"]["p_value"] == report.results[-1].each.p_value
