"""A causal language model and its tokenizer, from a local directory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from tetris_decode.prompts import Conversation

LOCAL: Any = {"local_files_only": True, "trust_remote_code": False}
Part = TypeVar("Part")


@dataclass(frozen=True)
class ChatModel:
    """A causal language model, in evaluation mode, and its tokenizer.

    name: for titles.
    """

    name: str
    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The tokens that end an answer: the model's, and the tokenizer's."""
        of_model = self.model.generation_config.eos_token_id
        listed = of_model if isinstance(of_model, list) else [of_model]
        return tuple(sorted({token for token in (*listed, self.tokenizer.eos_token_id) if token is not None}))

    def encode(self, conversation: str | Conversation) -> list[int]:
        """The tokens of a prompt: what a user says, or a whole conversation.

        Through the chat template; without one, a text as it stands.

        Raises:
            ValueError: a conversation without a chat template; nothing to encode.
        """
        ids: list[int]
        if self.tokenizer.chat_template is None:
            if not isinstance(conversation, str):
                raise ValueError(f"prompts: expected texts, as {self.name} has no chat template, got messages")
            ids = self.tokenizer(conversation)["input_ids"]
        else:
            said = [("user", conversation)] if isinstance(conversation, str) else conversation
            messages = [{"role": role, "content": content} for role, content in said]
            text = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        if not ids:
            raise ValueError(f"prompts: expected at least one token each, got none of {conversation!r}")
        return ids

    def decode(self, tokens: list[int]) -> str:
        """The text of an answer."""
        return str(self.tokenizer.decode(tokens, skip_special_tokens=True))


def load_directory(option: str, path: Path, *, dtype: torch.dtype, device: torch.device) -> ChatModel:
    """The model in a directory such as `save_pretrained` makes. Nothing is downloaded, no code of it is run.

    `option` is what named the directory, for errors.

    Raises:
        ValueError: no such directory, one without a configuration, a tokenizer or weights, or another kind of model.
    """
    if not path.is_dir():
        raise ValueError(f"{option}: expected a local directory, as nothing is downloaded, got {path}, which is none")
    if not (path / "config.json").is_file():
        raise ValueError(f"{option}: expected a directory with a model's config.json, got {path} without")
    config = _part("a configuration", option, path, lambda: AutoConfig.from_pretrained(path, **LOCAL))
    if type(config) not in MODEL_FOR_CAUSAL_LM_MAPPING:
        raise ValueError(f"{option}: expected a causal language model, got {config.model_type} in {path}")
    tokenizer = load_tokenizer(option, path)
    model = _part("weights", option, path, lambda: AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **LOCAL))
    return ChatModel(path.resolve().name, model.eval().to(device=device), tokenizer)


def load_tokenizer(option: str, path: Path) -> PreTrainedTokenizerBase:
    """The tokenizer in such a directory; ValueError if there is none."""
    if not path.is_dir():
        raise ValueError(f"{option}: expected a local directory, as nothing is downloaded, got {path}, which is none")
    tokenizer: PreTrainedTokenizerBase = _part(
        "a tokenizer", option, path, lambda: AutoTokenizer.from_pretrained(path, **LOCAL)
    )
    return tokenizer


def _part(what: str, option: str, path: Path, load: Callable[[], Part]) -> Part:
    try:
        return load()
    # Whatever the parser of a broken file raises: KeyError, OSError, one of safetensors' own.
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise ValueError(f"{option}: expected {what} in {path}, got an error of transformers: {reason}") from error


def check_same_tokens(target: ChatModel, draft: ChatModel) -> None:
    """A draft model must speak of the target's tokens, by the same ids.

    Raises:
        ValueError: another vocabulary, with the first id that differs, or another number of logits.
    """
    ours, theirs = ({index: token for token, index in chat.tokenizer.get_vocab().items()} for chat in (target, draft))
    for index in sorted(ours.keys() | theirs.keys()):
        expected, got = (f"{vocab[index]!r}" if index in vocab else "none" for vocab in (ours, theirs))
        if expected != got:
            raise ValueError(f"draft: expected the target's tokenizer, whose token {index} is {expected}, got {got}")
    expected_size, size = target.model.config.vocab_size, draft.model.config.vocab_size
    if size != expected_size:
        raise ValueError(f"draft: expected {expected_size} logits a token, as the target has, padding too, got {size}")
