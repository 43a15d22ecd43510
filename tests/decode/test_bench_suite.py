"""`tetris-decode bench`: its policies, the planned budget, and the command on a tiny model."""

from __future__ import annotations

import json

import pytest
from local_models import save
from test_cli import invoke
from tiny_models import noisy_copy, random_prompts, target

from tetris_decode import bench_suite
from tetris_decode.bench_suite import Settings, make_policies, plan
from tetris_decode.draft_model import ModelDrafter
from tetris_decode.policies import Tetris
from tetris_decode.record import record
from tetris_decode.simulate import Replay
from tetris_kernels import CostTable

PROMPTS = random_prompts(5, 1, 9, 20, 3)


def costs(per_token: float, length: int = 8) -> CostTable:
    """1 ms, and so much for each token; drafts are free."""
    return CostTable({}, (1, 101), (1e-3, 1e-3 + 100 * per_token), (0.0,) * (length + 1))


@pytest.fixture(scope="module")
def replay() -> Replay:
    return Replay(record(target(), PROMPTS, 24, ModelDrafter(noisy_copy())))


@pytest.mark.parametrize(("per_token", "budget"), [(0.0, 3.0), (1.0, 0.0)])
def test_the_plan_follows_the_costs(replay, per_token, budget):
    """All that may help if it is free; nothing if each token costs as much as a step."""
    assert getattr(plan(replay, costs(per_token), 4, 8), "drafts_per_request", 0.0) == budget


def test_dear_drafts_are_not_made(replay):
    dear = CostTable({}, (1, 101), (1e-3, 1e-3), tuple(1e-3 * length for length in range(9)))
    assert plan(replay, dear, 4, 8).length < plan(replay, costs(0.0), 4, 8).length


def test_policies_of_a_small_batch_leave_out_what_is_no_draft():
    names = make_policies(costs(1.0), 1, 8, planned=None)
    assert "TETRIS 0.5" not in names and "TETRIS 1" in names and "TETRIS, planned" not in names
    assert "adaptive" in names and not [name for name in make_policies(costs(0.0), 1, 8, None) if "adaptive" in name]
    planned = make_policies(costs(0.0), 16, 8, planned=Tetris(0.75, 4))["TETRIS, planned"]
    assert planned == Tetris(0.75, 4)


def test_every_case_is_measured(replay):
    settings = Settings(batch_sizes=(1, 3), temperatures=(0.0, 0.7), max_new_tokens=8, blocks=2, block_seconds=0.02)
    asked, titles = [], []

    def recorded(temperature: float) -> Replay | None:
        asked.append(temperature)
        return None if temperature else replay

    cases = list(
        bench_suite.run(
            target(), PROMPTS, (), ModelDrafter(noisy_copy()), settings, recorded=recorded, on_block=titles.append
        )
    )
    assert [(case.rows[0].batch_size, case.rows[0].temperature) for case in cases] == [
        (1, 0.0),
        (1, 0.7),
        (3, 0.0),
        (3, 0.7),
    ]
    assert asked == [0.0, 0.7] * 2 and len(titles) == 4 * (settings.blocks + 2)
    for case in cases:
        greedy = case.rows[0].temperature == 0
        assert (case.planned is not None) == greedy
        assert ("TETRIS, planned" in [row.policy for row in case.rows]) == greedy
        assert all(row.equal_texts == row.texts for row in case.rows), "float32"
        assert case.rows[0].policy == "no speculation" and case.rows[0].relative.median == 1


SMALL = ["--max-new-tokens", "6", "--blocks", "2", "--block-seconds", "0.02", "--dtype", "float32"]


def test_the_command(tmp_path):
    model = save(tmp_path / "model")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a b c"}\n{"prompt": "c b"}\n')
    out = tmp_path / "bench.json"
    arguments = ["bench", "--model", str(model), "--prompts", str(prompts), "--out", str(out), *SMALL]
    code, output = invoke(*arguments, "--batch-size", "2", "--temperature", "0")
    assert code == 0, output
    assert "2 requests at a time, greedy:" in output and max(map(len, output.splitlines())) <= 140
    document = json.loads(out.read_text())
    assert [row["policy"] for row in document["rows"]][:2] == ["no speculation", "fixed k = 1"]
    for row in document["rows"]:
        assert set(row["relative"]) == {"median", "low", "high"}
        assert row["metrics"]["throughput"] > 0
        assert row["policy"] in output
    [measured] = document["costs"]
    assert measured["tokens"] == [2, 3, 4, 5, 6, 8, 10, 14, 18] and measured["planned"] is None
    assert invoke("plot", "throughput", str(out), "--out", str(tmp_path / "bench.png")) == (0, "")
    assert (tmp_path / "bench.png").exists()


def test_ctrl_c_leaves_what_is_complete(tmp_path, monkeypatch):
    run = bench_suite.run

    def interrupted(*args, **options):
        yield next(run(*args, **options))
        raise KeyboardInterrupt

    monkeypatch.setattr(bench_suite, "run", interrupted)
    model, out = save(tmp_path / "model"), tmp_path / "bench.json"
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a b c"}\n')
    arguments = ["bench", "--model", str(model), "--prompts", str(prompts), "--out", str(out), *SMALL]
    code, output = invoke(*arguments, "--batch-size", "1")
    assert code == 130 and f"interrupted: what was done is in {out}" in " ".join(output.split())
    assert {row["temperature"] for row in json.loads(out.read_text())["rows"]} == {0.0}


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--longest-prompt", "1"], "prompts: expected some of at most 1 tokens, got none"),
        (["--out", "/nowhere/bench.json"], "out: expected a file in a directory that exists, got /nowhere/bench.json"),
    ],
)
def test_wrong_input(tmp_path, arguments, text):
    model = save(tmp_path / "model")
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"prompt": "a b c"}\n')
    code, output = invoke("bench", "--model", str(model), "--prompts", str(prompts), *SMALL, *arguments)
    assert code == 2 and text in " ".join(output.split())
