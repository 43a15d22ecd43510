"""The picture of a GPU run: kernel time of each way against the size of the batch.

`python -m bench.gpu_plot bench/results/<run>.csv` draws it again from the run's files.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bench.gpu_results import Row

OURS = "tetris_kernels, triton"
AT = "64 x 8"


def _size(row: Row) -> str:
    return f"{row['requests']} x {row['drafts']}"


def draw(rows: Sequence[Row], about: dict[str, str], path: Path) -> None:
    """On the left medians over kinds and budgets, on the right what the host waits for with smooth inputs at 64 x 8."""
    chosen = [row for row in rows if row["kind"] == "smooth" and float(str(row["budget"])) == 0.5]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    sizes = list(dict.fromkeys(_size(row) for row in chosen))  # a run goes from small to large
    for way in dict.fromkeys(str(row["way"]) for row in chosen):
        times: dict[str, list[float]] = {}
        for row in rows:
            if row["way"] == way and row["warm us"] and _size(row) in sizes:
                times.setdefault(_size(row), []).append(float(str(row["warm us"])))
        points = {size: median(values) for size, values in times.items()}
        if points:
            xs = [sizes.index(size) for size in points]
            left.plot(xs, list(points.values()), marker="o", label=way, linewidth=3 if way == OURS else 1.2)
    left.set_xticks(range(len(sizes)), sizes)
    left.set(yscale="log", xlabel="requests x drafts", ylabel="microseconds a call, graph replay, median")
    left.set_title("on the GPU")
    left.legend(fontsize=7, loc="upper left", ncols=2)
    left.set_ylim(top=1000)
    left.grid(alpha=0.3, which="both")

    at = [row for row in chosen if _size(row) == AT]
    at.sort(key=lambda row: -float(str(row["host us"])))
    right.barh([str(row["way"]) for row in at], [float(str(row["host us"])) for row in at])
    right.set(xscale="log", xlabel="microseconds until the host has a decision on the device, " + AT)
    right.set_title("one eager decision, smooth input, half of the drafts")
    right.grid(alpha=0.3, axis="x", which="both")
    where = f"{about['device']}, torch {about['torch']}, triton {about['triton']}"
    figure.suptitle(f"select; {where}", fontsize=10)
    figure.savefig(path, dpi=120)
    plt.close(figure)


if __name__ == "__main__":
    table = Path(sys.argv[1])
    with table.open() as file:
        draw(list(csv.DictReader(file)), json.loads(table.with_suffix(".json").read_text()), table.with_suffix(".png"))
