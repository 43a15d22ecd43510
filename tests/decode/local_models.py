"""Directories as `save_pretrained` makes them: a tiny random model and a tokenizer that was trained on a few lines."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from tiny_models import VOCAB_SIZE, target
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.utils import logging

# As the program does, by a variable that is read too early for tests that run its commands in their own process.
logging.disable_progress_bar()

TEXT = "the target verifies what the drafter drafts, and the batch has one budget for all of its requests: 0123456789"
CHAT_TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + ' ' }}{% endfor %}the "


@cache
def trained(seed: str) -> str:
    """The JSON of a BPE tokenizer of at most `VOCAB_SIZE` tokens."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=VOCAB_SIZE, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    tokenizer.train_from_iterator([seed], trainer)
    return tokenizer.to_str()


def make_tokenizer(*, seed: str = TEXT, chat_template: str | None = CHAT_TEMPLATE) -> PreTrainedTokenizerFast:
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(trained(seed)), unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )
    tokenizer.chat_template = chat_template
    return tokenizer


def save(
    path: Path, model: PreTrainedModel | None = None, *, seed: str = TEXT, chat_template: str | None = CHAT_TEMPLATE
) -> Path:
    """The target of `tiny_models`, or another model, with a tokenizer."""
    (model or target()).save_pretrained(path)
    make_tokenizer(seed=seed, chat_template=chat_template).save_pretrained(path)
    return path
