"""The OpenAI-compatible server with clients side by side, its metrics, and clients that hang up."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from engines import engine, generate, speculation

PROMPTS = [[i, 2 * i + 1, i, 2 * i + 1, 5] for i in range(1, 17)]
TOKENS = 30


class Server:
    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"

    def get(self, path: str) -> str:
        with urllib.request.urlopen(self.url + path, timeout=30) as response:
            return response.read().decode()

    def post(self, body: dict):
        data = json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/v1/completions", data, {"Content-Type": "application/json"})
        return urllib.request.urlopen(request, timeout=120)

    def complete(self, prompt: list[int]) -> list[int]:
        with self.post(body(prompt)) as response:
            return json.load(response)["choices"][0]["token_ids"]

    def metric(self, name: str) -> float:
        found = re.findall(rf"^{re.escape(name)}\{{.*\}} (\S+)$", self.get("/metrics"), re.M)
        assert len(found) == 1, name
        return float(found[0])


def body(prompt: list[int], tokens: int = TOKENS, **more) -> dict:
    options = {"temperature": 0, "max_tokens": tokens, "ignore_eos": True, "return_token_ids": True}
    return {"model": "tiny", "prompt": prompt, **options, **more}


@pytest.fixture(scope="module")
def expected(folders) -> list[list[int]]:
    with engine(folders, None) as llm:
        return generate(llm, PROMPTS, TOKENS)


@pytest.fixture(scope="module")
def server(folders, tmp_path_factory) -> Iterator[Server]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = {"dtype": "float32", "max-model-len": "256", "max-num-seqs": "16", "seed": "0"}
    command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", folders["target"]]
    command += ["--served-model-name", "tiny", "--enforce-eager", "--port", str(port)]
    command += ["--speculative-config", json.dumps(speculation("draft_model", folders))]
    command += [word for name, value in options.items() for word in (f"--{name}", value)]
    log = tmp_path_factory.mktemp("server") / "log"
    variables = {name: value for name, value in os.environ.items() if not name.startswith("TETRIS_")}
    variables |= {"TETRIS_VLLM_BUDGET": "1x", "VLLM_ENABLE_V1_MULTIPROCESSING": "1"}
    with log.open("w") as out:
        process = subprocess.Popen(command, env=variables, stdout=out, stderr=out)
    made = Server(port)
    try:
        for _ in range(240):
            if process.poll() is not None:
                break
            try:
                made.get("/health")
                break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(1)
        else:
            pytest.fail(log.read_text())
        assert process.poll() is None, log.read_text()
        yield made
    finally:
        process.terminate()
        process.wait(60)


def test_clients_side_by_side(server, expected):
    with ThreadPoolExecutor(8) as clients:
        assert list(clients.map(server.complete, PROMPTS)) == expected


def test_metrics_beside_those_of_vllm(server, expected):
    names = ("proposed", "budget", "verified", "accepted")
    with ThreadPoolExecutor(8) as clients:
        list(clients.map(server.complete, PROMPTS))
    proposed, budget, verified, accepted = (server.metric(f"tetris:draft_tokens_{name}_total") for name in names)
    assert 0 < accepted <= verified <= budget < proposed
    assert server.metric("tetris:selection_seconds_total") > 0
    assert server.metric("tetris:steps_total") > 0
    (labels,) = re.findall(r"^tetris:steps_total\{(.*)\}", server.get("/metrics"), re.M)
    assert set(labels.split(",")) == {'model_name="tiny"', 'engine="0"'}
    # vLLM counts what it schedules, which the plugin has cut.
    assert server.metric("vllm:spec_decode_num_draft_tokens_total") == verified
    assert server.metric("vllm:spec_decode_num_accepted_tokens_total") == accepted


def test_clients_that_hang_up(server, expected):
    """In the middle of their texts: the others get theirs, and later ones too."""

    def hang_up(prompt):
        with server.post(body(prompt, 200, stream=True)) as response:
            for _ in range(6):
                response.readline()

    before = server.metric("vllm:generation_tokens_total")
    with ThreadPoolExecutor(8) as clients:
        leaving = [clients.submit(hang_up, prompt) for prompt in PROMPTS[:4]]
        assert list(clients.map(server.complete, PROMPTS)) == expected
        for client in leaving:
            client.result()
    deadline = time.time() + 30
    while server.metric("vllm:num_requests_running") and time.time() < deadline:
        time.sleep(0.2)
    assert server.metric("vllm:num_requests_running") == 0
    # Else they were not in the middle.
    assert server.metric("vllm:generation_tokens_total") - before < len(PROMPTS) * TOKENS + 4 * 200
    assert server.complete(PROMPTS[0]) == expected[0]
