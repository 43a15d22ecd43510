"""The roofline model of GPUs, against the formulas by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tetris_decode.roofline import A100, H100, SYSTEMS, Gpu, Model, Roofline

TOY = Roofline(
    gpu=Gpu("toy", bf16=1000.0, fp8=2000.0, bandwidth=100.0),
    target=Model("big", parameters=50.0, bytes_per_weight=1, cache_bytes=2),
    drafter=Model("small", parameters=5.0, bytes_per_weight=2, cache_bytes=1),
    num_gpus=2,
    context=10,
    compute_efficiency=0.5,
    memory_efficiency=0.25,
    target_overhead=1.0,
    draft_overhead=0.125,
)


def test_times_are_those_of_the_formulas():
    costs = TOY.costs(batch_size=4, length=3)
    # 50 + 4 * 10 * 2 bytes at 2 * 100 / 4 a second; 2 * 50 operations a token at 2 * 2000 / 2.
    memory, per_token = 130 / 50, 100 / 2000
    assert TOY.ridge(4) == pytest.approx(memory / per_token)
    for tokens in (1, 4, 30, 51, 52, 53, 60, 106, 500):
        assert costs.verification(tokens) == pytest.approx(1 + max(memory, tokens * per_token))
    # 10 + 4 * 10 * 1 bytes at 25; 10 operations for each of 4 tokens at 500.
    assert costs.draft_seconds == pytest.approx([n * (0.125 + 50 / 25) for n in range(4)])
    many = replace(TOY, drafter=Model("small", 500.0, 2, 0)).costs(batch_size=400, length=1)
    assert many.drafting(1) == pytest.approx(0.125 + 400 * 1000 / 500), "arithmetic decides"


def test_the_key_tells_every_parameter():
    key = TOY.costs(4, 3).key
    assert key["kind"] == "a model, nothing measured"
    assert (key["gpu name"], key["target parameters"], key["batch_size"]) == ("toy", "50", "4")
    changes = [{"context": 11}, {"num_gpus": 3}, {"gpu": A100}, {"target_overhead": 2.0}, {"memory_efficiency": 0.5}]
    base = replace(TOY, target=replace(TOY.target, bytes_per_weight=2))
    assert all(replace(base, **change).key(4) != base.key(4) for change in changes)
    assert "nothing measured" in TOY.describe() and "0.25 of memory" in TOY.describe()


@pytest.mark.parametrize("name", SYSTEMS)
def test_systems_of_the_paper(name):
    """Verification is bound by memory at one token each, by arithmetic at many; the weights and caches have room."""
    system = SYSTEMS[name]
    assert 64 < system.ridge(64) < 64 * 16
    held = system.target.parameters * system.target.bytes_per_weight + 64 * system.context * system.target.cache_bytes
    assert held < system.num_gpus * 80e9 and system.gpu is H100
    costs = system.costs(64, 8)
    assert costs.drafting(1) < costs.verification(64) / 2


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"num_gpus": 0}, "num_gpus: expected 1 or more, got 0"),
        ({"context": 0}, "context: expected 1 or more, got 0"),
        ({"compute_efficiency": 0.0}, r"compute_efficiency: expected more than 0, up to 1, got 0\.0"),
        ({"memory_efficiency": 1.5}, r"memory_efficiency: expected more than 0, up to 1, got 1\.5"),
        ({"gpu": A100}, "big: expected 2 bytes per weight, or 1 on a GPU with FP8, got others"),
    ],
)
def test_bad_input(changed, text):
    with pytest.raises(ValueError, match=text):
        replace(TOY, **changed)
