"""select against everybody on a GPU: `make bench-gpu`. Without one it says so and measures nothing.

First the gate, on every batch; then four times of each way (gpu_time.py): the kernels by graph replay over distinct
buffers, warm on every input, and on smooth inputs at half of the drafts also with a flushed L2, on the stream, and on
the host's clock. For a way that runs on the CPU the host's clock includes what it then takes: the log-probs
copied to pinned memory, a synchronisation, the selection, and the lengths copied back. Before that, the stages over
logits and the small ones around `select`.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from time import perf_counter

import torch
from torch import Tensor

from bench import gate, gpu_plot, gpu_results, gpu_time, inputs, logits, stages
from bench.environment import environment
from bench.gpu_results import Row
from bench.peers.catalogue import OURS, PEERS
from bench.peers.peer import Peer, Unavailable

HOST_FRACTION = 0.5
FOLDER = Path(__file__).parent / "results"


def distinct(kind: str, shape: tuple[int, int], fraction: float) -> list[inputs.Input]:
    """Batches of several seeds: what is checked, and what is timed."""
    return [inputs.make(kind, *shape, fraction, start=seed * inputs.SEEDS) for seed in range(gpu_time.SEEDS)]


def on_buffers(some: Sequence[inputs.Input]) -> list[inputs.Input]:
    """The batches on the GPU, each in several buffers."""
    return [batch.on("cuda") for batch in gpu_time.in_turn(some)]


def judged(peers: Sequence[Peer]) -> list[gate.Verdict]:
    """What each way did on all batches that are timed, where it runs."""
    verdicts = []
    for shape, kind, fraction in itertools.product(inputs.SHAPES, inputs.KINDS, inputs.FRACTIONS):
        some = distinct(kind, shape, fraction)
        for device in ("cuda", "cpu"):
            verdicts += gate.check([peer for peer in peers if runs_on(peer) == device], some, device)
    return verdicts


def require_same(peer: Peer, some: Sequence[inputs.Input], replayed: Sequence[object]) -> None:
    """What a graph's last replay left is what eager calls give, which the gate has seen."""
    for batch, outputs in zip(some, replayed, strict=True):
        # Which of equal floats a library's top-k takes may differ from call to call.
        if peer.exact or batch.clear:
            lens, _ = peer.select(batch.logprobs, batch.budget, batch.draft_lens)
            if not torch.equal(lens, outputs[0]):  # type: ignore[index]
                raise gate.RedGate(f"{peer.name} on {batch.name}: a replayed graph gives other lens")


def calls_of(peer: Peer, some: Sequence[inputs.Input]) -> list[gpu_time.Call]:
    """Calls as a server would make them: with the budget on the device where a way takes that."""
    device = some[0].logprobs.device
    budgets = [torch.tensor(b.budget, device=device) if peer.device_budget else b.budget for b in some]
    return [
        partial(peer.select, batch.logprobs, budget, batch.draft_lens)
        for batch, budget in zip(some, budgets, strict=True)
    ]


def through_the_cpu(peer: Peer, batch: inputs.Input) -> gpu_time.Call:
    """A decision on the host about log-probs on the GPU, from idle device to lengths on the device."""
    pinned = torch.empty(batch.logprobs.shape, pin_memory=True)
    draft_lens = None if batch.draft_lens is None else batch.draft_lens.cpu()

    def decide() -> tuple[Tensor, ...]:
        pinned.copy_(batch.logprobs, non_blocking=True)
        torch.cuda.current_stream().synchronize()
        outputs = peer.select(pinned, batch.budget, draft_lens)
        return tuple(output.to("cuda", non_blocking=True) for output in outputs)

    return decide


def available(peers: Sequence[Peer]) -> Iterator[Peer]:
    """Those that this machine can load; says why not, where it cannot."""
    for peer in peers:
        try:
            _ = peer.select
        except Unavailable as error:
            print(f"left out: {peer.name}: {error}")
        else:
            yield peer


def runs_on(peer: Peer) -> str:
    return "cuda" if "cuda" in peer.devices else "cpu"


def of_selection(peers: Sequence[Peer], verdicts: Sequence[gate.Verdict]) -> Iterator[Row]:
    """All times of all ways, a row each."""
    began = perf_counter()
    for shape, kind, fraction in itertools.product(inputs.SHAPES, inputs.KINDS, inputs.FRACTIONS):
        some = on_buffers(distinct(kind, shape, fraction))
        everything = kind == "smooth" and fraction == HOST_FRACTION
        for peer in peers:
            row: Row = {"requests": shape[0], "drafts": shape[1], "kind": kind, "budget": fraction, "way": peer.name}
            on_gpu = runs_on(peer) == "cuda"
            if not (peer.takes("cuda", *shape) if on_gpu else everything):
                continue
            of_input = [v for v in verdicts if (v.peer, v.input) == (peer.name, some[0].name)]
            row["rows wrong"] = max(verdict.differ for verdict in of_input)
            row["beyond budget"] = max(verdict.excess for verdict in of_input)
            row |= dict.fromkeys(("warm us", "cold us", "stream us", "host us"), "")
            if on_gpu:
                calls = calls_of(peer, some)
                microseconds, outputs = gpu_time.warm(calls)
                require_same(peer, some, outputs)
                row["warm us"] = round(microseconds, 2)
                if everything:
                    row["cold us"] = round(gpu_time.cold(calls), 2)
                    row["stream us"] = round(gpu_time.on_stream(calls), 2)
                    row["host us"] = round(gpu_time.on_host(calls[0]), 1)
            else:
                row["host us"] = round(gpu_time.on_host(through_the_cpu(peer, some[0])), 1)
            yield row
        print(f"{perf_counter() - began:4.0f} s: {shape[0]} x {shape[1]} {kind} {fraction:.0%}", file=sys.stderr)


def main() -> int:
    if not torch.cuda.is_available():
        print(f"Skipped: there is no CUDA or ROCm GPU that torch {torch.__version__} can use. Nothing was measured.")
        return 0
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    torch.set_num_threads(1)
    about = environment("cuda")
    print(", ".join(f"{name} {value}" for name, value in about.items()))
    file = folder / ("gpu-" + about["device"].replace(" ", "-"))

    peers = list(available((*OURS, *PEERS)))
    verdicts = judged(peers)
    gate.require_green(verdicts)
    print(f"gate: {len(verdicts)} verdicts, all green\n")
    limits = gpu_time.limits()
    gpu_results.write_notes(file.with_suffix(".json"), about | limits)
    over_logits = list(logits.measure())
    gpu_results.write(file.with_name(file.name + "-logits.csv"), over_logits)
    print(", ".join(f"{name} {value}" for name, value in limits.items()) + "; bfloat16 logits:")
    print(gpu_results.table(over_logits, list(over_logits[0])) + "\n")
    around = list(stages.measure())
    gpu_results.write(file.with_name(file.name + "-stages.csv"), around)
    print(gpu_results.table(around, list(around[0])) + "\n")

    rows: list[Row] = []
    for row in of_selection(peers, verdicts):
        rows.append(row)
        if row["way"] == peers[-1].name:
            gpu_results.write(file.with_suffix(".csv"), rows)
    gpu_plot.draw(rows, about, file.with_suffix(".png"))

    whole = ("requests", "drafts", "way", "warm us", "cold us", "stream us", "host us")
    print(gpu_results.table([r for r in rows if r["kind"] == "smooth" and r["budget"] == HOST_FRACTION], whole) + "\n")
    for way in OURS[1:]:
        ours = [r for r in rows if r["way"] == way.name]
        print(
            f"{way.name}, by kind and budget\n"
            + gpu_results.table(ours, ("requests", "drafts", "kind", "budget", "warm us"))
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
