"""Make the n-gram table: `python -m tetris_decode.build_ngrams OUT.npz`. Takes about ten minutes on two cores.

SmolLM2 answers the prompts that are not for evaluation, once greedily and once sampled at temperature 0.7, and
the trigrams of its answers are counted, with the two tokens before each answer as their first context.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from typing import Any

import torch
from rich.console import Console
from rich.progress import track

from tetris_decode import prompts, smollm2
from tetris_decode.chat_model import ChatModel
from tetris_decode.ngram_table import NgramTable

BATCH_SIZE = 32
MAX_NEW_TOKENS = 256
TEMPERATURE = 0.7
SEED = 0


def build(out: str) -> None:
    """Generate, count, write."""
    chat = smollm2.load()
    # Prompts of like lengths together: little padding.
    encoded = sorted((chat.encode(prompt.text) for prompt in prompts.counted()), key=len)
    batches = [encoded[i : i + BATCH_SIZE] for i in range(0, len(encoded), BATCH_SIZE)]
    torch.manual_seed(SEED)
    work = [(batch, sampled) for sampled in (False, True) for batch in batches]
    progress = track(work, "generating", console=Console(stderr=True))
    documents = [document for batch, sampled in progress for document in answers(chat, batch, sampled=sampled)]
    table = NgramTable.count(documents, chat.model.config.vocab_size)
    table.save(out)
    print(f"{out}: {len(table.counts):,} trigrams of {sum(map(len, documents)):,} tokens")


@torch.inference_mode()
def answers(chat: ChatModel, batch: Sequence[Sequence[int]], *, sampled: bool) -> list[list[int]]:
    """The answer to each prompt, its end token included, behind the last two tokens of the prompt."""
    width = max(map(len, batch))
    eos: int = chat.tokenizer.eos_token_id
    ids = torch.tensor([[eos] * (width - len(prompt)) + list(prompt) for prompt in batch])
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in batch])
    how = {"do_sample": True, "temperature": TEMPERATURE, "top_k": 0} if sampled else {"do_sample": False}
    model: Any = chat.model
    output = model.generate(ids, attention_mask=mask, max_new_tokens=MAX_NEW_TOKENS, **how)
    return [row[:2] + until_end(row[2:], eos) for row in output[:, width - 2 :].tolist()]


def until_end(tokens: list[int], eos: int) -> list[int]:
    """The tokens up to the one that ends an answer, that one included."""
    return tokens[: tokens.index(eos) + 1] if eos in tokens else tokens


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("out", help="where to write the table")
    build(parser.parse_args().out)
