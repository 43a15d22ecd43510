"""The picture of a GPU run: kernel time of each way against the size of the batch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from bench.gpu_results import Row


def draw(rows: Sequence[Row], about: dict[str, str], path: Path) -> None:
    """Smooth inputs, half of the drafts; on the left by size, on the right at 64 x 8 what the host waits for."""
    chosen = [row for row in rows if row["kind"] == "smooth" and row["budget"] == 0.5]
    figure, (left, right) = plt.subplots(1, 2, figsize=(12, 4.8), layout="constrained")
    sizes = sorted({(row["requests"], row["drafts"]) for row in chosen}, key=lambda size: size[0] * size[1])
    ways = list(dict.fromkeys(row["way"] for row in chosen))
    for way in ways:
        points = {(row["requests"], row["drafts"]): row["warm us"] for row in chosen if row["way"] == way}
        xs = [i for i, size in enumerate(sizes) if points.get(size)]
        if xs:
            ours = str(way) == "tetris_kernels, triton"
            left.plot(xs, [points[sizes[i]] for i in xs], marker="o", label=way, linewidth=3 if ours else 1.2)
    left.set_xticks(range(len(sizes)), [f"{n} x {k}" for n, k in sizes])
    left.set(yscale="log", xlabel="requests x drafts", ylabel="microseconds a call, graph replay")
    left.set_title("on the GPU")
    left.legend(fontsize=7)
    left.grid(alpha=0.3, which="both")

    at = [row for row in chosen if (row["requests"], row["drafts"]) == (64, 8)]
    at.sort(key=lambda row: -float(str(row["host us"])))
    right.barh([str(row["way"]) for row in at], [float(str(row["host us"])) for row in at])
    right.set(xscale="log", xlabel="microseconds until the host has a decision on the device, 64 x 8")
    right.set_title("one decision, host clock")
    right.grid(alpha=0.3, axis="x", which="both")
    figure.suptitle(
        f"select, smooth inputs, half of the drafts; {about['device']}, torch {about['torch']}", fontsize=10
    )
    figure.savefig(path, dpi=120)
    plt.close(figure)
