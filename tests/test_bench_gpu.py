"""What `make bench-gpu` checks before it measures, on CPU tensors; the times need a GPU."""

from __future__ import annotations

import csv
import dataclasses
import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the benchmark runs compiled kernels", allow_module_level=True)

from bench import bench_gpu, gate, logits, stages
from bench.peers.catalogue import by_name
from tetris_kernels import pack, score, select


def step(n: int = 6, k: int = 4, vocabulary: int = 300):
    """What `require_right` takes."""
    generator = torch.Generator().manual_seed(0)
    draft_logits = torch.randn(n, k, vocabulary, generator=generator).bfloat16()
    ids = torch.randint(vocabulary, (n, k), generator=generator)
    capacity = n * (k // 2 + 1)
    packed = pack(select(score(draft_logits, ids), n * k // 2), ids, ids[:, 0], ids[:, 0], capacity=capacity)
    return draft_logits, ids, packed, torch.randn(capacity, vocabulary, generator=generator).bfloat16()


def test_stages_over_logits_pass_their_gate():
    logits.require_right(*step())


@pytest.mark.parametrize("kind", ["token", "collision"])
def test_a_wrong_score_is_red(monkeypatch, kind):
    real = logits.score
    off = 1e-3 * torch.eye(6, 4)
    monkeypatch.setattr(logits, "score", lambda *args, **named: real(*args, **named) + off * (named["kind"] == kind))
    with pytest.raises(gate.RedGate, match=f"score of kind {kind}"):
        logits.require_right(*step())


def test_a_wrong_selection_is_red(monkeypatch):
    real = logits.select_from_logits
    monkeypatch.setattr(logits, "select_from_logits", lambda x, ids, budget: real(x, ids, budget - 1))
    with pytest.raises(gate.RedGate, match="select_from_logits"):
        logits.require_right(*step())


@pytest.mark.parametrize("options", [{"temperature"}, set(), {"draft_logits"}], ids=str)
def test_a_wrong_acceptance_is_red(monkeypatch, options):
    real = logits.accept

    def wrong(*args, backend, **named):
        done = real(*args, backend=backend, **named)
        return done._replace(tokens=done.tokens + 1) if backend == "auto" and set(named) == options else done

    monkeypatch.setattr(logits, "accept", wrong)
    with pytest.raises(gate.RedGate, match="accept with"):
        logits.require_right(*step())


def test_replayed_lens_are_compared():
    peer, some = by_name("tetris_kernels, torch"), bench_gpu.distinct("coarse", (8, 4), 0.5)
    right = [peer.select(batch.logprobs, batch.budget, batch.draft_lens) for batch in some]
    bench_gpu.require_same(peer, some, right)
    right[-1] = (right[-1][0].roll(1), right[-1][1])
    with pytest.raises(gate.RedGate, match="a replayed graph gives other lens"):
        bench_gpu.require_same(peer, some, right)


def test_every_timed_batch_is_judged(monkeypatch):
    seen = []
    monkeypatch.setattr(bench_gpu.gate, "check", lambda peers, inputs, device: seen.extend(inputs) or [])
    monkeypatch.setattr(bench_gpu.inputs, "SHAPES", ((8, 4),))
    bench_gpu.judged([])
    timed = bench_gpu.distinct("smooth", (8, 4), 0.5)
    assert len({batch.seed for batch in timed}) == bench_gpu.gpu_time.SEEDS
    assert {batch.seed for batch in timed} <= {batch.seed for batch in seen if batch.kind == "smooth"}


def test_a_whole_run(monkeypatch, tmp_path, capsys):
    """All but the times: which rows there are, and the files, with a way that takes only small batches."""
    small = dataclasses.replace(by_name("two argsorts"), name="small batches only", max_entries=100)
    ways = [by_name("tetris_kernels, torch"), small, by_name("Python heapq"), by_name("topk + scatter_max")]
    monkeypatch.setattr(bench_gpu.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(bench_gpu, "environment", lambda device: {"device": "A GPU", "torch": "2", "triton": "3"})
    monkeypatch.setattr(bench_gpu, "available", lambda peers: iter(ways))
    monkeypatch.setattr(bench_gpu, "through_the_cpu", lambda peer, batch: None)
    monkeypatch.setattr(bench_gpu.inputs.Input, "on", lambda batch, device: batch)
    monkeypatch.setattr(stages.Batch, "to", lambda batch, device: batch)
    for name, value in {"SHAPES": ((8, 4), (64, 8)), "FRACTIONS": (0.5,)}.items():
        monkeypatch.setattr(bench_gpu.inputs, name, value)
    monkeypatch.setattr(bench_gpu.gpu_time, "limits", lambda: {"copy TB/s": "1"})
    monkeypatch.setattr(bench_gpu.gpu_time, "warm", lambda calls: (2.0, [call() for call in calls]))
    for name in ("cold", "on_stream", "on_host"):
        monkeypatch.setattr(bench_gpu.gpu_time, name, lambda call: 3.0)
    monkeypatch.setattr(bench_gpu.logits, "measure", lambda: iter([{"way": "score", "us": 4.0}]))
    monkeypatch.setattr(bench_gpu.sys, "argv", ["bench_gpu", str(tmp_path)])

    assert bench_gpu.main() == 0
    assert {path.name for path in tmp_path.iterdir()} == {
        "gpu-A-GPU.csv", "gpu-A-GPU.json", "gpu-A-GPU.png", "gpu-A-GPU-logits.csv", "gpu-A-GPU-stages.csv"
    }  # fmt: skip
    with (tmp_path / "gpu-A-GPU-stages.csv").open() as file:
        assert len(list(csv.DictReader(file))) == 2 * (len(stages.STAGES) + 3)
    with (tmp_path / "gpu-A-GPU.csv").open() as file:
        rows = list(csv.DictReader(file))
    kinds = len(bench_gpu.inputs.KINDS)
    # On the CPU, heapq is timed on smooth inputs alone.
    assert [sum(row["way"] == way.name for row in rows) for way in ways] == [2 * kinds, kinds, 2, 2 * kinds]
    assert all(row["rows wrong"] == "0" for row in rows if row["way"] != "topk + scatter_max")
    assert "all green" in capsys.readouterr().out


@pytest.mark.parametrize("stage", stages.STAGES)
def test_small_stages_pass_their_gate_and_a_wrong_one_is_red(monkeypatch, stage):
    batch = stages.Batch.drawn((6, 4), seed=0)
    stages.require_same(stage, batch, "cpu")
    real, calls = stages.STAGES[stage], []

    def wrong(given):
        calls.append(given)
        first, *rest = real(given)
        return [first + (len(calls) == 1), *rest]

    monkeypatch.setitem(stages.STAGES, stage, wrong)
    with pytest.raises(gate.RedGate, match=stage):
        stages.require_same(stage, batch, "cpu")


def test_optional_tensors_of_the_bench_change_no_selection():
    batch = stages.Batch.drawn((6, 4), seed=0)
    plain, preferring = (stages.STAGES[stage](batch) for stage in ("select", "select, all optional tensors"))
    assert torch.equal(plain.lens, preferring.lens) and torch.equal(plain.lens, batch.lens)


def test_a_wrong_calibration_is_red(monkeypatch):
    batch = stages.Batch.drawn((64, 4), seed=0)
    stages.require_alike(batch, "cpu")
    real, calls = stages.Calibration.__call__, []

    def wrong(self, scores, *, kind):
        calls.append(scores)
        return real(self, scores, kind=kind) - 0.1 * (len(calls) == 1)

    monkeypatch.setattr(stages.Calibration, "__call__", wrong)
    with pytest.raises(gate.RedGate, match="a calibration on cpu"):
        stages.require_alike(batch, "cpu")
