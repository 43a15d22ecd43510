"""SmolLM2 in vLLM's server, with and without the plugin: `make bench-vllm`.

On this machine's CPU, for each drafter a server without speculation, one without the plugin and one for each budget, at
the same time (some 14 GB). Clients side by side ask one server after the other the same real prompts through the chat
API, so that a machine that changes its speed does so for all. The rows have what the servers' metrics say, and whether
texts are those of no speculation.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from statistics import median

from rich import box
from rich.console import Console
from rich.table import Table

from tetris_decode import prompts, smollm2
from tetris_decode.chat_model import ChatModel
from tetris_decode.draft_model import skip_layers
from tetris_decode.machine import machine

CLIENTS = 8
REQUESTS = 64
MAX_TOKENS = 64
NUM_DRAFTS = 4
START = 180  # seconds until a server answers
NGRAM = {"method": "ngram", "prompt_lookup_max": 3, "prompt_lookup_min": 1}
# As the plugin does where drafts are drawn, for one position of all of them.
SCORING = """
import time, statistics, torch
from tetris_kernels import score
logits, ids, seconds = torch.randn({rows}, 1, {vocabulary}).bfloat16(), torch.zeros({rows}, 1, dtype=torch.int32), []
for _ in range(300):
    began = time.perf_counter()
    score(logits, ids, kind="top", temperature=1.0)
    seconds.append(time.perf_counter() - began)
print(1e3 * statistics.median(seconds))
"""
# The plugin's budgets with each drafter.
BUDGETS = {"n-gram": ("1x", "0.5x"), "layer-skip": ("2x", "1x")}


@dataclass
class Row:
    """drafter: None is no speculation. budget: None is no plugin. texts: token ids, of all prompts. seconds: of each
    block of prompts. metrics: what counters went up by."""

    drafter: str | None
    budget: str | None
    texts: list[list[int]] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    metrics: dict[str, float] = field(default_factory=dict)

    def throughputs(self) -> list[float]:
        """Tokens per second, block by block."""
        tokens = [sum(map(len, self.texts[i * CLIENTS : (i + 1) * CLIENTS])) for i in range(len(self.seconds))]
        return [count / seconds for count, seconds in zip(tokens, self.seconds, strict=True)]


def make_checkpoints(chat: ChatModel, folder: Path) -> dict[str, str]:
    """The model and itself without some layers, as vLLM reads them."""
    # Its weights were packed in the file they come from, and no longer are; transformers would not save it otherwise.
    chat.model.hf_quantizer = None
    del chat.model.config.quantization_config
    found = {"target": folder / "target", "layer-skip": folder / "layer-skip"}
    for name, model in (("target", chat.model), ("layer-skip", skip_layers(chat.model, smollm2.SKIPPED_LAYERS))):
        model.save_pretrained(found[name])
        chat.tokenizer.save_pretrained(found[name])
    return {name: str(path) for name, path in found.items()}


@contextmanager
def server(python: str, checkpoints: dict[str, str], drafter: str | None, budget: str | None) -> Iterator[str]:
    """Its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", checkpoints["target"]]
    command += ["--served-model-name", smollm2.NAME, "--dtype", "bfloat16", "--max-model-len", "2048"]
    command += ["--max-num-seqs", str(CLIENTS), "--enforce-eager", "--no-async-scheduling", "--port", str(port)]
    command += ["--no-enable-prefix-caching"]
    if drafter is not None:
        speculation = NGRAM if drafter == "n-gram" else {"method": "draft_model", "model": checkpoints[drafter]}
        command += ["--speculative-config", json.dumps(speculation | {"num_speculative_tokens": NUM_DRAFTS})]
    variables = {name: value for name, value in os.environ.items() if not name.startswith(("TETRIS_", "GOMP_", "OMP_"))}
    variables |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    variables |= {"LD_PRELOAD": str(Path(python).parents[1] / "lib" / "libiomp5.so"), "VLLM_USE_V2_MODEL_RUNNER": "0"}
    if budget is not None:
        variables["TETRIS_VLLM_BUDGET"] = budget
    with tempfile.NamedTemporaryFile("w+", suffix=".log") as log:
        process = subprocess.Popen(command, env=variables, stdout=log, stderr=log)
        address = f"http://127.0.0.1:{port}"
        try:
            if not _answers(address, process):
                raise RuntimeError(f"server: expected an answer within {START} s, got\n{Path(log.name).read_text()}")
            yield address
        finally:
            process.terminate()
            process.wait(60)


def _answers(address: str, process: subprocess.Popen[bytes]) -> bool:
    began = time.monotonic()
    while process.poll() is None and time.monotonic() - began < START:
        try:
            get(f"{address}/health")
        except (urllib.error.URLError, ConnectionError):
            time.sleep(1)
        else:
            return True
    return False


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as response:
        text: str = response.read().decode()
    return text


def ask(address: str, prompt: str) -> list[int]:
    """The tokens of an answer, greedy."""
    body = {"model": smollm2.NAME, "messages": [{"role": "user", "content": prompt}], "return_token_ids": True}
    data = json.dumps(body | {"temperature": 0, "max_tokens": MAX_TOKENS}).encode()
    request = urllib.request.Request(f"{address}/v1/chat/completions", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=600) as response:
        tokens: list[int] = json.load(response)["choices"][0]["token_ids"]
    return tokens


def metrics(address: str) -> dict[str, float]:
    """Sums of the server's counters of speculation, by name."""
    lines = re.findall(r"^((?:vllm:spec_decode_num|tetris:)\w+)\{.*\} (\S+)$", get(f"{address}/metrics"), re.MULTILINE)
    found: dict[str, float] = {}
    for name, value in lines:
        found[name] = found.get(name, 0.0) + float(value)
    return found


def measure(servers: Sequence[tuple[Row, str]], texts: Sequence[str]) -> None:
    """Fill in the rows of these addresses: a block of prompts at a time, of all of them in turn."""
    blocks = [texts[first : first + CLIENTS] for first in range(0, len(texts), CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as clients:
        for row, address in servers:
            list(clients.map(partial(ask, address), blocks[0]))  # allocates
            row.metrics = {name: -value for name, value in metrics(address).items()}
        for block in blocks:
            for row, address in servers:
                began = time.monotonic()
                row.texts += clients.map(partial(ask, address), block)
                row.seconds.append(time.monotonic() - began)
    for row, address in servers:
        row.metrics = {name: value + row.metrics.get(name, 0.0) for name, value in metrics(address).items()}


def show(groups: Sequence[Sequence[Row]], console: Console) -> None:
    """The first of a group is without speculation."""
    table = Table(box=box.SIMPLE_HEAD, padding=0, pad_edge=False)
    headers = (
        "drafter",
        "plugin's\nbudget",
        "tokens/s",
        "of no\nspec.",
        "drafts\nmade",
        "\nverified",
        "\naccepted",
        "selecting,\nms a step",
    )
    for i, header in enumerate((*headers, "equal\ntexts")):
        table.add_column(header, justify="right" if i > 1 else "left")
    for rows in groups:
        for row in rows:
            table.add_row(*cells(row, rows[0]))
        table.add_section()
    console.print(table)


def cells(row: Row, plain: Row) -> list[str]:
    verified = row.metrics.get("vllm:spec_decode_num_draft_tokens_total")
    accepted = row.metrics.get("vllm:spec_decode_num_accepted_tokens_total")
    made = row.metrics.get("tetris:draft_tokens_proposed_total", verified)
    steps = row.metrics.get("tetris:steps_total")
    ratios = [own / without for own, without in zip(row.throughputs(), plain.throughputs(), strict=True)]
    return [
        row.drafter or "none",
        row.budget or "no plugin",
        f"{sum(map(len, row.texts)) / sum(row.seconds):.1f}",
        f"{median(ratios):.2f}",
        *("-" if count is None else f"{count:,.0f}" for count in (made, verified, accepted)),
        f"{1e3 * row.metrics['tetris:selection_seconds_total'] / steps:.2f}" if steps else "-",
        f"{sum(text == without for text, without in zip(row.texts, plain.texts, strict=True))} of {len(row.texts)}",
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default=".venv-vllm/bin/python", help="with vLLM and this package")
    parser.add_argument("--requests", type=int, default=REQUESTS)
    arguments = parser.parse_args()
    chosen = [prompt for prompt in prompts.evaluation() if not prompt.name.startswith("docstring/")]
    texts = [prompt.text for prompt in chosen[: arguments.requests]]
    progress, chat, groups = Console(stderr=True), smollm2.load(), []
    with tempfile.TemporaryDirectory() as folder:
        checkpoints = make_checkpoints(chat, Path(folder))
        for drafter, budgets in BUDGETS.items():
            groups.append([Row(None, None), *(Row(drafter, budget) for budget in (None, *budgets))])
            with ExitStack() as stack:
                servers = []
                for row in groups[-1]:
                    progress.print(f"starts: {row.drafter or 'no speculation'}, {row.budget or 'no plugin'}")
                    how = (row.drafter, row.budget)
                    servers.append((row, stack.enter_context(server(arguments.python, checkpoints, *how))))
                progress.print("all answer")
                measure(servers, texts)
    version = in_python(arguments.python, "from tetris_vllm import seams; print(seams.version())")
    vocabulary = chat.model.config.vocab_size
    scoring = float(in_python(arguments.python, SCORING.format(rows=CLIENTS, vocabulary=vocabulary)))
    console = Console(width=110, highlight=False)
    console.print(
        f"{smollm2.NAME} in bfloat16 by vLLM {version}, greedy, {len(texts)} prompts of MT-bench and HumanEval, "
        f"{MAX_TOKENS} tokens each at most, {CLIENTS} clients, {NUM_DRAFTS} drafts; {machine()}"
    )
    show(groups, console)
    console.print(f"Scoring a draft position of {CLIENTS} requests, {vocabulary:,} logits each: {scoring:.2f} ms")
    last = groups[-1][-1]
    shortest = min(range(len(texts)), key=lambda i: len(texts[i]))
    answer = chat.tokenizer.decode(last.texts[shortest], skip_special_tokens=True)
    console.print(f"\nAn answer with {last.drafter} drafts, budget {last.budget}\n> {texts[shortest]}\n{answer}")


def in_python(python: str, code: str) -> str:
    """What the code prints there."""
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
