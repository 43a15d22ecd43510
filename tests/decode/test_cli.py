"""The command line: what is printed, as text and as JSON, and what is refused."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import asdict

import pytest
from typer.testing import CliRunner

from tetris_decode import lossless
from tetris_decode.commands.app import app
from tetris_decode.replay import compare
from tetris_decode.simulate import Replay
from tetris_decode.traces import load_runs

SMALL = ["replay", "--run", "layer-skip@T0", "--batch-size", "16", "-k", "1", "-k", "0.5"]

# Output as into a file, also where a CI asks for colours.
PLAIN = {"FORCE_COLOR": "", "TTY_COMPATIBLE": "0"}


def invoke(*arguments: str) -> tuple[int, str]:
    result = CliRunner(env=PLAIN).invoke(app, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, result.output


def test_json_holds_what_compare_returns():
    code, output = invoke(*SMALL, "--json")
    assert code == 0
    document = json.loads(output)
    run = load_runs()["layer-skip@T0"]
    assert document["comparisons"] == [
        asdict(compare(Replay(run), batch_size=16, drafts_per_request=k, extra=2)) for k in (1.0, 0.5)
    ]
    assert document["extra"] == 2
    assert document["runs"] == {"layer-skip@T0": run.about}


def test_default_replay_compares_every_run_within_100_columns():
    code, output = invoke("replay")
    assert code == 0
    assert max(map(len, output.splitlines())) <= 100
    assert "Batches of 32 requests" in output
    for name in load_runs():
        # Once with a section of budgets, once with a row of batch sizes.
        assert len(re.findall(rf"^ *{re.escape(name)} ", output, re.M)) == 2
    assert len(re.findall(r"^ +(?:0\.5|1|2|3|4) +(?:-|\d\.\d\d) +\d\.\d\d", output, re.M)) == 20
    assert "Nothing was timed" in output


def test_table_shows_the_numbers_of_the_largest_batch():
    [row] = [line.split() for line in invoke(*SMALL, "--batch-size", "4")[1].splitlines() if re.match(r"^ +1 ", line)]
    [values, _] = json.loads(invoke(*SMALL, "--json")[1])["comparisons"]
    fixed, tetris, gain = values["fixed"], values["tetris"], values["accepted_gain"]
    assert row[:7] == [
        "1",
        f"{fixed['accepted_per_verification']:.2f}",
        f"{tetris['accepted_per_verification']:.2f}",
        f"{fixed['tokens_per_verification']:.2f}",
        f"{tetris['tokens_per_verification']:.2f}",
        f"{100 * fixed['success_rate']:.1f}",
        f"{100 * tetris['success_rate']:.1f}",
    ]
    assert row[7:11] == [f"{gain['percent']:+.1f}", f"({gain['low']:.0f}", "to", f"{gain['high']:.0f})"]
    assert row[11] == f"{values['tokens_gain']['percent']:+.1f}"


def test_batch_sizes_are_compared_only_if_there_are_several():
    assert "by batch size" not in invoke(*SMALL)[1]
    assert "by batch size, at 1 verified per request" in invoke(*SMALL, "--batch-size", "4")[1]
    # A fixed length has no half drafts, so there is no gain to compare.
    assert "by batch size" not in invoke("replay", "-k", "0.5", "--run", "ngram@T0.7")[1]


def test_a_replay_needs_no_transformers():
    code = f"import sys; sys.modules['transformers'] = None; sys.argv = {['tetris-decode', *SMALL]}\n"
    code += "from tetris_decode.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "layer-skip@T0" in done.stdout, done.stderr


def test_repeated_values_are_measured_once():
    _, output = invoke(*SMALL, *SMALL[1:], "--json")
    assert len(json.loads(output)["comparisons"]) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--run", "gpt"], r"run: expected one of ngram@T0, .*, layer-skip@T0\.7, got gpt"),
        (["--batch-size", "146"], "batch size: expected 1 to 145, the recorded requests, got 146"),
        (["-k", "9"], "drafts per request: expected more than 0, up to 8, got 9"),
        (["--extra", "-1"], "extra: expected 0 or more, got -1"),
        (["--batch-size", "many"], "Invalid value for '--batch-size'"),
        (["--speed"], "No such option"),
    ],
)
def test_wrong_input_is_refused_in_a_sentence(arguments, message):
    code, output = invoke("replay", *arguments)
    assert code == 2
    assert re.search(message, output)


def test_module_runs_as_a_program():
    command = [sys.executable, "-m", "tetris_decode", *SMALL]
    done = subprocess.run(command, env=os.environ | PLAIN, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert "layer-skip@T0" in done.stdout and done.stderr == ""


@pytest.mark.parametrize("missing", ["rich", "typer", "transformers"])
def test_a_base_install_is_told_what_to_install(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; from tetris_decode.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code, "demo"], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.strip().endswith("pip install 'tetris-kernels[decode]' brings what it needs")
    assert f"needs {missing}" in done.stderr


def test_lossless_prints_a_table_and_succeeds(monkeypatch):
    ways = [way for way in lossless.WAYS if way.name in ("token, coupled", "token, direct")]
    monkeypatch.setattr(lossless, "WAYS", ways)
    code, output = invoke("lossless", "--batches", "500")
    assert code == 0 and "As it must be." in output
    assert max(map(len, output.splitlines())) <= 100
    code, output = invoke("lossless", "--batches", "500", "--json")
    assert code == 0 and json.loads(output)["holds"] is True


def test_lossless_fails_if_a_way_is_biased(monkeypatch):
    monkeypatch.setattr(lossless, "WAYS", [lossless.Way("token, direct", bonus="direct")])
    code, output = invoke("lossless", "--batches", "500")
    assert code == 1 and "NOT as it must be." in output


def test_options_are_lowercase_whatever_typer_makes_of_a_metavar():
    """typer 0.27 calls an option by its metavar where that is its name in capitals."""
    from typer.main import get_command

    names = {name for command in get_command(app).commands.values() for p in command.params for name in p.opts}
    assert "--device" in names
    assert names == {name.lower() for name in names}
