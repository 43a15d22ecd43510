"""What `make bench-gpu` checks before it measures, on CPU tensors; the times need a GPU."""

from __future__ import annotations

import os

import pytest
import torch

if os.environ.get("TRITON_INTERPRET") == "1":
    pytest.skip("the benchmark runs compiled kernels", allow_module_level=True)

from bench import bench_gpu, gate, logits
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
    assert len({batch.seed for batch in timed}) == bench_gpu.SEEDS
    assert {batch.seed for batch in timed} <= {batch.seed for batch in seen if batch.kind == "smooth"}
