"""The live decoder on SmolLM2 and real prompts: `make bench-generate`.

First plain decoding, without drafts, against transformers' own `generate`: the same prompts as one batch, reading
them included. Then what each drafter is worth and costs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from tetris_decode import prompts, smollm2
from tetris_decode.build_ngrams import until_end
from tetris_decode.chat_model import ChatModel
from tetris_decode.decoder import generate
from tetris_decode.live import differences
from tetris_decode.machine import machine
from tetris_decode.policies import FixedLength

BATCH_SIZES = (1, 4, 16)
MAX_NEW_TOKENS = 48
ROUNDS = 3
NUM_DRAFTS = 4
DRAFTERS = ("ngram", "own-ngram", "layer-skip")
PROGRESS = Console(stderr=True)


def transformers_generate(chat: ChatModel, encoded: Sequence[Sequence[int]]) -> list[list[int]]:
    """Greedy decoding as transformers does it: padded on the left, a cache that grows."""
    width = max(map(len, encoded))
    eos = chat.tokenizer.eos_token_id
    ids = torch.tensor([[eos] * (width - len(prompt)) + list(prompt) for prompt in encoded])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in encoded])
    output = chat.model.generate(
        ids, attention_mask=mask, max_new_tokens=MAX_NEW_TOKENS, do_sample=False, pad_token_id=eos
    )
    rows = output[:, width:].tolist()
    return [until_end(row, eos) for row in rows]


def tetris_generate(chat: ChatModel, encoded: Sequence[Sequence[int]]) -> list[list[int]]:
    """The same by this package, without drafts."""
    return generate(chat.model, encoded, MAX_NEW_TOKENS, eos_token_id=chat.eos_token_ids).outputs


def timed(run: Callable[..., list[list[int]]], *args: object) -> tuple[float, list[list[int]]]:
    began = perf_counter()
    outputs = run(*args)
    return perf_counter() - began, outputs


def plain_decoding(chat: ChatModel, encoded: Sequence[Sequence[int]]) -> Table:
    """Both in turn, several times; the ratio is that of neighbours.

    Texts differ at near-ties, since the two do not multiply matrices of the same shapes: the largest gap between
    the logits of two such tokens is shown, relative to the logit. One unit of bfloat16 is 0.004 to 0.008 of it.
    """
    table = Table(title="Plain decoding, seconds of the whole call", box=None, title_justify="left")
    headers = ("requests", "transformers generate", "tetris_decode", "speed, generate = 1", "lowest")
    for header in (*headers, "equal texts", "largest gap"):
        table.add_column(header, justify="right")
    for size in BATCH_SIZES:
        batch = encoded[:size]
        theirs, ours = [], []
        for _ in track(range(ROUNDS), f"{size} requests", console=PROGRESS, transient=True):
            theirs.append(timed(transformers_generate, chat, batch))
            ours.append(timed(tetris_generate, chat, batch))
        ratios = [a / b for (a, _), (b, _) in zip(theirs, ours, strict=True)]
        different = differences(chat.model, batch, theirs[0][1], ours[0][1])
        gap = max((abs(d.logit_gap / d.logit) for d in different), default=0)
        medians = (f"{median(seconds for seconds, _ in runs):.2f}" for runs in (theirs, ours))
        table.add_row(
            str(size),
            *medians,
            f"{median(ratios):.2f}",
            f"{min(ratios):.2f}",
            f"{size - len(different)} of {size}",
            f"{gap:.3f}",
        )
    return table


def drafters(chat: ChatModel, encoded: Sequence[Sequence[int]]) -> Table:
    """Acceptance with drafts of a fixed length, and the time of a draft against that of a plain step."""
    table = Table(title=f"Drafters, {len(encoded)} requests", box=None, title_justify="left")
    headers = ("drafter", "first draft accepted", f"accepted of {NUM_DRAFTS}", "ms per draft", "of a plain step")
    for i, header in enumerate(headers):
        table.add_column(header, justify="right" if i else "left")
    eos = chat.tokenizer.eos_token_id
    plain = generate(chat.model, encoded, MAX_NEW_TOKENS, eos_token_id=eos)
    step = median(step.seconds for step in plain.steps)
    for name in track(DRAFTERS, "drafters", console=PROGRESS, transient=True):
        drafter = smollm2.make_drafter(name, chat)
        one, several = (
            generate(
                chat.model, encoded, MAX_NEW_TOKENS, drafter=drafter, policy=FixedLength(k), eos_token_id=eos
            ).steps
            for k in (1, NUM_DRAFTS)
        )
        first = sum(s.accepted for s in one) / sum(s.verified for s in one)
        accepted = sum(s.accepted for s in several) / sum(s.requests for s in several)
        # The first step of a drafting model reads the prompts.
        draft = median(s.draft_seconds / NUM_DRAFTS for s in several[1:])
        table.add_row(name, f"{first:.3f}", f"{accepted:.2f}", f"{1e3 * draft:.2f}", f"{draft / step:.3f}")
    return table


def main() -> None:
    chat = smollm2.load()
    encoded = [chat.encode(prompt.text) for prompt in prompts.evaluation()[: max(BATCH_SIZES)]]
    generate(chat.model, encoded, 2)
    transformers_generate(chat, encoded[:1])
    console = Console(width=110, highlight=False)
    console.print(
        f"{smollm2.NAME} in bfloat16, greedy, {MAX_NEW_TOKENS} tokens, medians of {ROUNDS} runs; {machine()}\n"
    )
    console.print(plain_decoding(chat, encoded), "")
    console.print(drafters(chat, encoded))


if __name__ == "__main__":
    main()
