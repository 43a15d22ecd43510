"""What `tetris-decode calibrate` measures, against loops and other commands; what it prints and refuses."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, replace

import numpy as np
import pytest
import test_cli
from code_blocks import ROOT, blocks
from made_runs import head, made_run

from tetris_decode import plot_data
from tetris_decode.calibrate import FOLDS, ONLINE, RAW, cross_fitted, fitted, folds, gained, verified
from tetris_decode.calibrators import FITS
from tetris_decode.replay import compare
from tetris_decode.simulate import Replay
from tetris_decode.traces import Run, load_runs

RUNS = load_runs()


def invoke(*arguments: str) -> tuple[int, str]:
    return test_cli.invoke("calibrate", *arguments)


def random_run(seed: int, num_requests: int = 7) -> Run:
    rng = np.random.default_rng(seed)
    num_tokens = rng.integers(1, 9, num_requests)
    shape = int((num_tokens - 1).sum()), 3
    # Few values, so that there are ties.
    return made_run(np.log(rng.integers(1, 6, shape) / 5), rng.random(shape) < 0.6, num_tokens.tolist())


def survivals(run: Run) -> list[tuple[float, bool]]:
    """Estimate and outcome of each draft."""
    found = []
    for row, length in enumerate(run.draft_lens.tolist()):
        estimate, survives = 1.0, True
        for j in range(length):
            estimate *= float(np.exp(np.float64(run.log_q[row, j])))
            survives = survives and bool(run.accepted[row, j])
            found.append((estimate, survives))
    return found


@pytest.mark.parametrize("seed", range(8))
def test_auc_is_that_of_all_pairs(seed):
    run = random_run(seed)
    # Products of the same factors in another order differ in their last bits.
    rounded = [(round(estimate, 9), survives) for estimate, survives in survivals(run)]
    good, bad = ([e for e, s in rounded if s == which] for which in (True, False))
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in good for b in bad]
    (fit,) = fitted(run, {RAW: run.log_q})
    assert fit.auc == pytest.approx(np.mean(wins), abs=0.01)
    assert fit.error_change is fit.auc_change is None


@pytest.mark.parametrize("name", RUNS)
def test_error_is_that_of_the_reliability_plot(name):
    (fit,) = fitted(RUNS[name], {RAW: RUNS[name].log_q})
    assert fit.error == pytest.approx(plot_data.reliability(RUNS[name]).error, rel=1e-9)


def test_the_true_probabilities_have_no_error_and_a_constant_no_rank():
    run = random_run(3, num_requests=40)
    truth = np.where(run.accepted, 0.0, -80.0).astype(np.float32)
    fits = {fit.method: fit for fit in fitted(run, {RAW: run.log_q, "true": truth, "even": np.full_like(truth, 0.0)})}
    assert fits["true"].error == pytest.approx(0) and fits["true"].auc == 1
    assert fits["even"].auc == 0.5
    change = fits["true"].error_change
    assert change.value == pytest.approx(-fits[RAW].error) and change.low <= change.high < 0
    assert fits["true"].auc_change.low > 0


def test_no_difference_is_none():
    run = random_run(4)
    other = list(fitted(run, {RAW: run.log_q, "same": run.log_q}))[1]
    assert (*other.error_change, *other.auc_change) == (0,) * 6


def test_what_is_tested_ends_with_the_first_rejection():
    run = made_run(np.full((4, 3), -0.5), [[1, 1, 1], [1, 0, 1], [0, 1, 1], [1, 1, 1]], [5])
    of = verified(run, np.array([0, 1, 2, 3]))
    assert of.lens.tolist() == [3, 2, 1, 0] and of.leading.tolist() == [3, 1, 0, 0]


def test_folds_are_of_requests():
    run = RUNS["ngram@T0"]
    fold = folds(run)
    of_request = [set(fold[run.request == r].tolist()) for r in range(run.num_requests)]
    assert all(len(found) == 1 for found in of_request)
    sizes = np.bincount([found.pop() for found in of_request])
    assert len(sizes) == FOLDS and sizes.max() - sizes.min() <= 1


@pytest.mark.parametrize("method", FITS)
def test_a_request_is_calibrated_by_others_only(method):
    run = head(RUNS["layer-skip@T0.7"], 10)
    before, fold = cross_fitted(run, method), folds(run)
    request = run.request == 4
    changed = replace(run, accepted=np.where(request[:, None], ~run.accepted, run.accepted))
    after = cross_fitted(changed, method)
    same = fold == fold[request][0]
    assert np.array_equal(before[same], after[same]), "of its own fold"
    assert not np.array_equal(before[~same], after[~same])


def test_raw_scores_are_replayed_as_replay_does():
    run = RUNS["ngram@T0"]
    found = gained(run, {RAW: run.log_q, "same": run.log_q}, batch_size=32, drafts_per_request=2)
    assert [g.method for g in found] == [RAW, "same", ONLINE]
    expected = compare(Replay(run), batch_size=32, drafts_per_request=2, extra=6).tetris.accepted_per_verification
    assert found[0].accepted_per_verification == found[1].accepted_per_verification == pytest.approx(expected)
    assert found[0].gain is None and found[1].gain.percent == found[1].gain.low == found[1].gain.high == 0
    assert found[2].gain.percent != 0, "it has learned something"


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"batch_size": 0}, "batch size: expected 1 to 7, the recorded requests, got 0"),
        ({"batch_size": 8}, "batch size: expected 1 to 7, the recorded requests, got 8"),
        ({"drafts_per_request": 0}, "drafts per request: expected more than 0, up to 3, got 0"),
        ({"drafts_per_request": 3.5}, r"drafts per request: expected more than 0, up to 3, got 3\.5"),
    ],
)
def test_bad_input(options, text):
    run = random_run(0)
    with pytest.raises(ValueError, match=text):
        gained(run, {RAW: run.log_q}, **{"batch_size": 2, "drafts_per_request": 1.0, **options})


def test_a_run_without_drafts_is_refused():
    run = made_run(np.zeros((1, 2)), np.zeros((1, 2)), [2])
    with pytest.raises(ValueError, match="run: expected one with drafts, got none in made@T0"):
        list(fitted(run, {RAW: run.log_q}))


def test_the_document_quotes_what_is_printed():
    """Numbers may differ a little: a fit's last bits depend on the processor, and so may which of two drafts is cut."""
    quoted = next(code for code in blocks(ROOT / "docs" / "calibration.md", "text") if "TETRIS in batches" in code)
    printed = invoke()[1]
    number = r"[-+]?\d+\.\d+"
    texts = [re.sub(r"\s+", " ", re.sub(number, "", text)).strip() for text in (quoted, printed)]
    assert texts[0] == texts[1]
    numbers = [[float(x) for x in re.findall(number, text)] for text in (quoted, printed)]
    assert numbers[0] == pytest.approx(numbers[1], abs=0.5)
    # What needs no fit is the same everywhere.
    of_raw = [re.findall(rf"^ *{RAW} .*$", text, re.M) for text in (quoted, printed)]
    assert [line.rstrip() for line in of_raw[0]] == [line.rstrip() for line in of_raw[1]] and len(of_raw[0]) == 8


SMALL = ["--run", "layer-skip@T0.7", "-k", "1", "-k", "0.5", "--batch-size", "16"]


def test_tables():
    code, output = invoke(*SMALL)
    assert code == 0 and max(map(len, output.splitlines())) <= 100
    flat = re.sub(r"\s+", " ", output)
    assert "TETRIS in batches of 16 requests" in flat and "k = 1 k = 0.5" in flat
    for method in (RAW, *FITS):
        assert len(re.findall(rf"^ *{method} ", output, re.M)) == 2, method
    interval = r" +[-+][\d.]+ \([-+][\d.]+ to [-+][\d.]+\)"
    assert len(re.findall(rf"^ *(?:{ONLINE}|{'|'.join(FITS)}){interval * 2} *$", output, re.M)) == 4
    assert "Drafts of layer-skip@T0.7 were drawn" in flat


def test_json_holds_what_is_measured():
    code, output = invoke(*SMALL, "--json")
    document = json.loads(output)
    assert code == 0 and document.keys() == {"runs", "folds", "batch_size", "fits", "gains"}
    run = RUNS["layer-skip@T0.7"]
    scores = {RAW: run.log_q} | {name: cross_fitted(run, name) for name in FITS}
    gains = [g for k in (1.0, 0.5) for g in gained(run, scores, batch_size=16, drafts_per_request=k)]
    assert document["gains"] == json.loads(json.dumps([asdict(g) for g in gains]))
    assert document["fits"] == json.loads(json.dumps([asdict(fit) for fit in fitted(run, scores)]))
    assert document["runs"] == {run.name: run.about} and document["batch_size"] == 16


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "gpt"], r"run: expected one of ngram@T0, .*layer-skip@T0\.7, got gpt"),
        (["--trace", "README.md"], r"README\.md: expected traces of tetris-decode record"),
        (["--batch-size", "0"], "Invalid value for '--batch-size'"),
        ([*SMALL, "--batch-size", "65"], "batch size: expected 1 to 64, the recorded requests, got 65"),
        ([*SMALL, "-k", "9"], "drafts per request: expected more than 0, up to 8, got 9"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(arguments, message):
    code, output = invoke(*arguments)
    assert code == 2 and re.search(message, output)
