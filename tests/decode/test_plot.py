"""The pictures, through the command line: a PNG of a sensible size, and what stands in it."""

from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest
from local_models import make_tokenizer, save
from made_runs import head
from test_cli import invoke
from test_plot_data import row

from tetris_decode import plot_data, plots, smollm2, traces
from tetris_decode.wheels import NotInstalledError


@pytest.fixture(scope="module")
def runs():
    """Of each recorded run the first requests, so that replays are quick."""
    return {name: head(run, 20) for name, run in traces.load_runs().items()}


@pytest.fixture(scope="module")
def trace(runs, tmp_path_factory) -> str:
    path = tmp_path_factory.mktemp("runs") / "t.npz"
    traces.save(path, runs.values())
    return str(path)


@pytest.fixture
def results(tmp_path) -> str:
    policies = ("no speculation", "fixed k = 1", "DSD", "threshold 0.4", "TETRIS 1")
    rows = [row(size, policy, 1.1, t) for size in (1, 8) for t in (0.0, 0.7) for policy in policies]
    path = tmp_path / "b.json"
    path.write_text(json.dumps({"machine": "M", "rows": rows}))
    return str(path)


def size_of_png(path: Path) -> tuple[int, int]:
    data = path.read_bytes()
    assert data[:8] == b"\x89PNG\r\n\x1a\n" and len(data) > 5000
    width, height = struct.unpack(">II", data[16:24])
    return width, height


def drawn(out: Path, *arguments: str) -> None:
    code, output = invoke("plot", *arguments, "--out", str(out))
    assert (code, output) == (0, "")
    width, height = size_of_png(out)
    assert width == plots.WIDTH * plots.DPI and 0.2 * width < height < 1.2 * width


def test_throughput(tmp_path, results):
    drawn(tmp_path / "p.png", "throughput", results)


@pytest.mark.parametrize("kind", ["budget", "reliability", "allocation"])
def test_pictures_of_a_trace(tmp_path, trace, runs, kind, monkeypatch):
    monkeypatch.setattr(smollm2, "load_tokenizer", make_tokenizer)
    drawn(tmp_path / "p.png", kind, "--trace", trace, "--run", list(runs)[-1])


def test_all_runs_of_the_package_are_the_default(tmp_path):
    drawn(tmp_path / "p.png", "reliability")


def texts(figure) -> list[str]:
    return [text.get_text() for ax in figure.axes for text in ax.texts]


def test_throughputs_are_drawn_where_they_are(results):
    figure = plots.throughput(plot_data.read_bench(Path(results)))
    for ax in figure.axes:
        medians = [line.get_xdata()[0] for line in ax.lines if line.get_marker() == "o"]
        assert medians == [1.1] * 10
        intervals = [tuple(line.get_xdata()) for line in ax.lines if line.get_marker() != "o"][1:]
        assert intervals == [pytest.approx((1.0, 1.3))] * 10
    assert [ax.get_title(loc="left") for ax in figure.axes] == ["1 request", "8 requests"]
    assert "filled: greedy, hollow: temperature 0.7; M" in figure.get_supxlabel()


def test_reliability_is_drawn_as_it_is(runs):
    of = plot_data.reliability(next(iter(runs.values())))
    above, below = plots.reliability([of]).axes
    assert np.array_equal(above.lines[1].get_xydata(), np.stack([of.estimated, of.observed], 1))
    assert [bar.get_height() for bar in below.patches] == of.counts.tolist()


def test_calibrated_reliability_is_drawn_beside_it(runs, tmp_path):
    run = next(iter(runs.values()))
    before, after = plot_data.reliability(run), plot_data.reliability(run, run.log_q / 2)
    above = plots.reliability([before], [after]).axes[0]
    assert np.array_equal(above.lines[1].get_xydata(), np.stack([before.estimated, before.observed], 1))
    assert np.array_equal(above.lines[2].get_xydata(), np.stack([after.estimated, after.observed], 1))
    assert above.get_title(loc="left").endswith(f"mean gap {before.error:.2f} → {after.error:.2f}")
    drawn(tmp_path / "p.png", "reliability", "--calibrated")


def test_budget_curves_are_drawn_as_they_are(runs):
    all_curves = [plot_data.budget_curves(run, 8) for run in runs.values()]
    for ax, of in zip(plots.budget(all_curves).axes, all_curves, strict=True):
        (left, right), (bottom, top) = ax.get_xlim(), ax.get_ylim()
        for line, points in zip(ax.lines, (of.oracle, of.tetris, of.fixed), strict=True):
            assert line.get_xydata().tolist() == [[point.verified, point.tokens] for point in points]
            assert all(left < point.verified < right and bottom < point.tokens < top for point in points)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 5, 6, 7])
def test_panels_of_any_number_of_runs(runs, count):
    of = plot_data.budget_curves(head(next(iter(runs.values())), 4), 4)
    figure = plots.budget([of] * count)
    assert len(figure.axes) == count
    figure.draw_without_rendering()
    # A column's lowest panel has the numbers of its axis.
    for ax in figure.axes:
        x, y = (ax.get_position().x0, ax.get_position().y0)
        is_lowest = all(
            other.get_position().y0 >= y or abs(other.get_position().x0 - x) > 0.01 for other in figure.axes
        )
        assert any(label.get_visible() and label.get_text() for label in ax.get_xticklabels()) == is_lowest


def test_every_draft_has_its_mark(runs):
    data = plot_data.typical(plot_data.allocations(next(iter(runs.values())), num_requests=8, k=2, extra=2))
    figure = plots.allocation(data, (1.25, 2), [["$a\nlong token"] * 4] * 8)
    assert (
        figure.axes[0].get_title(loc="left")
        == f"fixed k = 2: {data.num_accepted(data.fixed)} accepted (mean step: 1.2)"
    )
    for ax, lens in zip(figure.axes, (data.fixed, data.tetris), strict=True):
        marks = [text.get_text().strip() for text in ax.texts[::2]]
        assert marks.count("✓") == data.num_accepted(lens)
        assert marks.count("✓") + marks.count("✗") + marks.count("–") == lens.sum() == 16
        in_vain = [(row, p) for row in range(8) for p in range(lens[row]) if p and not data.accepted[row, p - 1]]
        assert marks.count("–") == len(in_vain)
        missed = sum(max(int(data.accepted[row].sum()) - int(lens[row]), 0) for row in range(8))
        assert marks.count("○") == missed
        assert {text.get_text() for text in ax.texts[1::2]} == {r"\$a↵lo…"}


def test_tokens_have_texts_if_a_tokenizer_is_at_hand(tmp_path, runs, trace, monkeypatch):
    seen = []
    draw = plots.allocation
    monkeypatch.setattr(
        plots, "allocation", lambda data, means, texts: seen.append((data.step, texts)) or draw(data, means, texts)
    )

    def missing():
        raise NotInstalledError("the model is not installed")

    arguments = ("allocation", "--trace", trace, "--requests", "3", "-k", "1", "--extra", "1", "--step", "2")
    monkeypatch.setattr(smollm2, "load_tokenizer", missing)
    drawn(tmp_path / "p.png", *arguments)
    model = save(tmp_path / "model")
    monkeypatch.setattr(smollm2, "load_tokenizer", lambda: pytest.fail("another model was named"))
    drawn(tmp_path / "p.png", *arguments, "--model", str(model))
    ids = plot_data.allocations(next(iter(runs.values())), num_requests=3, k=1, extra=1)[1].ids
    assert seen == [(2, None), (2, [[make_tokenizer().decode([token]) for token in row] for row in ids.tolist()])]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["reliability", "--run", "gpt"], r"run: expected one of .*, got gpt"),
        (["reliability", "--trace", "gone.npz"], "gone.npz"),
        (["allocation", "--step", "5000"], "step: expected one of 1, 2, "),
        (["allocation", "--model", "gone", "-k", "1"], "model: expected a local directory, as nothing is downloaded"),
        (["throughput", "gone.json"], "results: expected the JSON of tetris-decode bench, got gone.json: "),
        (["budget", "--batch-size", "0"], "Invalid value"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(tmp_path, arguments, message):
    code, output = invoke("plot", *arguments, "--out", str(tmp_path / "p.png"))
    assert code == 2 and message.split(r".*")[0] in output
    assert not (tmp_path / "p.png").exists()


def test_a_directory_that_does_not_exist_is_refused(results):
    expected = (2, "out: expected a file in a directory that exists, got gone/p.png\n")
    assert invoke("plot", "throughput", results, "--out", "gone/p.png") == expected
