"""The paper's comparison on a small run, and the findings on made results."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from made_runs import head, made_run

from tetris_decode.findings import findings
from tetris_decode.metrics import Metrics
from tetris_decode.paper import (
    CONTRASTS,
    DSD,
    FIXED,
    ORACLE,
    PLAIN,
    TETRIS,
    THRESHOLD,
    Choice,
    Contrast,
    Point,
    Setting,
    choices,
    study,
)
from tetris_decode.policies import FixedLength, Oracle, Tetris, Threshold
from tetris_decode.simulate import Replay, make_queue, simulate
from tetris_decode.traces import load_runs
from tetris_kernels import CostTable

COSTS = CostTable({"kind": "made"}, (1, 9, 100), (1.0, 1.0, 6.0), tuple(0.05 * n for n in range(9)))
RUN = head(load_runs()["ngram@T0"], 10)


def small(**options) -> Setting:
    return study(
        Replay(RUN), COSTS, **{"system": "made", "batch_size": 4, "num_requests": 16, "resamples": 3} | options
    )


def test_choices_are_those_of_the_paper():
    of = choices(8)
    assert len(of) == len(set(of)) == 1 + 6 + 1 + 3 + 17 + 17
    assert {(c.k, c.e) for c in of if c.kind == TETRIS} == {
        (k, e) for k in range(1, 7) for e in range(1, 4) if k + e <= 8
    }
    assert Choice(FIXED, 3).make(COSTS) == FixedLength(3) and Choice(PLAIN).make(COSTS) == FixedLength(0)
    assert Choice(TETRIS, 2, 1).make(COSTS) == Tetris(2, 3)
    assert Choice(THRESHOLD, confidence=0.3).make(COSTS) == Threshold(0.3, 6)
    assert isinstance(Choice(ORACLE, 2, 1).make(COSTS), Oracle)
    assert Choice(DSD).make(COSTS).length == 6
    assert [c.name for c in (Choice(TETRIS, 2, 1), Choice(FIXED, 3), Choice(THRESHOLD, confidence=0.3))] == [
        "TETRIS k=2 e=1",
        "fixed k=3",
        "threshold p=0.3",
    ]


def test_points_and_contrasts_are_those_of_the_simulator():
    setting = small(seed=5)

    def throughput(choice: Choice, seed: int, resample: bool) -> float:
        queue = make_queue(10, 16, seed, resample=resample)
        return simulate(RUN, choice.make(COSTS), COSTS, batch_size=4, queue=queue).metrics.throughput

    for point in setting.points:
        assert point.metrics.throughput == throughput(point.choice, 5, False)
    assert setting.contrasts.keys() == CONTRASTS.keys()
    best, fixed = setting.best(TETRIS), setting.best(FIXED)
    assert best.metrics.throughput == max(p.metrics.throughput for p in setting.points if p.choice.kind == TETRIS)
    contrast = setting.contrasts["over_fixed"]
    assert (contrast.of, contrast.over) == (best.choice, fixed.choice)
    assert contrast.percent == pytest.approx(100 * (best.metrics.throughput / fixed.metrics.throughput - 1))
    resampled = [
        100 * (throughput(best.choice, 5 + i, True) / throughput(fixed.choice, 5 + i, True) - 1) for i in (1, 2, 3)
    ]
    assert contrast.high - contrast.percent == pytest.approx(2 * np.std(resampled, ddof=1))
    assert contrast.percent - contrast.low == pytest.approx(contrast.high - contrast.percent)
    for name in ("over_same_k", "projected"):
        pair = setting.contrasts[name]
        assert pair.of.kind == TETRIS and pair.over == Choice(FIXED, pair.of.k)
    gains = [
        p.metrics.target_efficiency / setting.at(FIXED, p.choice.k).metrics.target_efficiency
        for p in setting.points
        if p.choice.kind == TETRIS
    ]
    assert setting.contrasts["projected"].percent == pytest.approx(100 * (max(gains) - 1))
    assert setting.contrasts["dsd"].of == Choice(DSD)


def test_progress_counts_simulations():
    count = []
    small(on_simulation=lambda: count.append(1))
    # Every policy once; at most seven in the contrasts, three times.
    assert len(choices(8)) + 3 * 3 <= len(count) <= len(choices(8)) + 3 * 7


METRICS = Metrics(1, 10, 0, 0, 0, 100.0, 1.0, 0.5, 0.5, 0.0, 0.0, 1.0, 0.1, 0.1, 1.0, 1.0)


def made_setting(best_e: int, percent: float, error: float, *, rates=(0.5, 0.6, 0.7), dsd=(0.0, 1.0)) -> Setting:
    """TETRIS of one k and every e, of which `best_e` is fastest; every contrast is `percent`, but DSD's."""
    points = [
        Point(Choice(TETRIS, k, e), replace(METRICS, throughput=110.0 if e == best_e else 105.0, success_rate=rate))
        for k in range(1, 7)
        for e, rate in zip((1, 2, 3), rates, strict=True)
    ]
    of, over = Choice(TETRIS, 1, best_e), Choice(FIXED, 1)
    contrast = Contrast(of, over, percent, percent - error, percent + error)
    contrasts = dict.fromkeys(CONTRASTS, contrast)
    contrasts["dsd"] = Contrast(Choice(DSD), over, dsd[0], dsd[0] - dsd[1], dsd[0] + dsd[1])
    return Setting("made@T0", "gpu", 16, tuple(points), contrasts)


def verdicts(*settings: Setting) -> list[str]:
    return [finding.agrees for finding in findings(settings)]


def test_findings_follow_the_results():
    assert verdicts(made_setting(1, 3, 1, dsd=(-5, 1))) == ["yes"] * 8
    assert verdicts(made_setting(3, -3, 1, rates=(0.5, 0.6, 0.6), dsd=(5, 1))) == ["no"] * 8
    assert verdicts(made_setting(2, 3, 1), made_setting(3, 3, 4, rates=(0.5, 0.4, 0.6)))[:7] == ["in part"] * 7
    found = findings([made_setting(1, 2, 1), made_setting(2, 7.25, 1)])
    assert found[0].here == (
        "up to +7.2 % (+6.2 to +8.2; made@T0, gpu, B=16, TETRIS k=1 e=2 over fixed k=1); "
        "above 0 beyond chance in 2 of 2 settings"
    )
    assert found[5].here == "best in 2 of 2 settings (e = 1: 1, e = 2: 1)"
    assert found[6].here == "at 12 of 12 settings and k"
    assert found[7].here == "beyond chance slower than the best fixed k in 0 of 2 settings, faster in 0"


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: small(resamples=1), "resamples: expected 2 or more, got 1"),
        (lambda: small(batch_size=0), "batch_size: expected 1 or more, got 0"),
        (
            lambda: study(Replay(made_run([[-1.0] * 6], [[1] * 6], [2])), COSTS, system="", batch_size=1),
            "run: expected 7 drafts or more, got 6",
        ),
        (
            lambda: study(
                Replay(made_run(np.zeros((0, 8)), np.zeros((0, 8)), [1])), COSTS, system="made", batch_size=1
            ),
            "run: expected at least one position, got none",
        ),
    ],
)
def test_bad_input(make, text):
    with pytest.raises(ValueError, match=text):
        make()
