"""The live demo: a model decodes prompts without speculation, with a fixed draft length, and with TETRIS."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from tetris_decode.decoder import Generation, generate
from tetris_decode.inputs import Inputs
from tetris_decode.live import Measurement, decode_in_turn, differences, median_run
from tetris_decode.machine import machine
from tetris_decode.metrics import Step
from tetris_decode.policies import NO_SPECULATION, FixedLength, Policy, Tetris

PLAIN = "no speculation"


@dataclass(frozen=True)
class Settings:
    """How the demo decodes; the command line's options."""

    max_new_tokens: int
    drafts_per_request: float
    extra: int
    batch_size: int
    temperature: float
    rounds: int

    @property
    def length(self) -> int:
        """Drafts made for each request, for TETRIS to choose from."""
        return math.ceil(self.drafts_per_request) + self.extra

    @property
    def policies(self) -> dict[str, Policy]:
        """Plain decoding first; a fixed length only where there is one that spends the budget."""
        made: dict[str, Policy] = {PLAIN: NO_SPECULATION}
        if self.drafts_per_request % 1 == 0:
            made[f"fixed k = {self.drafts_per_request:g}"] = FixedLength(int(self.drafts_per_request))
        made["TETRIS"] = Tetris(self.drafts_per_request, self.length)
        return made


class Demo:
    """Decodes the prompts of `inputs`, and knows at any time what has been measured so far.

    runs: complete runs of each policy.
    """

    def __init__(self, inputs: Inputs, settings: Settings) -> None:
        self.inputs, self.settings = inputs, settings
        self.runs: dict[str, list[Generation]] = {name: [] for name in settings.policies}

    def run(self, on_step: Callable[[str, Step], None]) -> None:
        """Every policy, in turn. `on_step` gets the policy's name and each of its steps, those of a warm-up too."""
        # The first forwards cost more: memory, and kernels that are made on the spot.
        short = [tokens[-8:] for tokens in self.inputs.encoded]
        for _ in decode_in_turn(self.settings.policies, 1, lambda _, policy: self._decode(policy, short, 4)):
            pass
        tokens = self.settings.max_new_tokens
        for name, run in decode_in_turn(
            self.settings.policies,
            self.settings.rounds,
            lambda name, policy: self._decode(policy, self.inputs.encoded, tokens, lambda step: on_step(name, step)),
        ):
            self.runs[name].append(run)

    def _decode(
        self,
        policy: Policy,
        prompts: list[list[int]],
        max_new_tokens: int,
        on_step: Callable[[Step], None] | None = None,
    ) -> Generation:
        return generate(
            self.inputs.chat.model,
            prompts,
            max_new_tokens,
            batch_size=self.settings.batch_size,
            drafter=self.inputs.drafter,
            policy=policy,
            temperature=self.settings.temperature,
            eos_token_id=self.inputs.chat.eos_token_ids,
            on_step=on_step,
        )

    def measurements(self) -> list[Measurement]:
        """Of the policies with a complete run."""
        plain = self.runs[PLAIN][0].outputs if self.runs[PLAIN] else []
        return [self._measurement(name, runs, plain) for name, runs in self.runs.items() if runs]

    def _measurement(self, name: str, runs: list[Generation], plain: list[list[int]]) -> Measurement:
        outputs, different = runs[0].outputs, None
        if not self.settings.temperature:
            different = differences(self.inputs.chat.model, self.inputs.encoded, plain, outputs)
        return Measurement(name, median_run(runs), outputs, different)

    def describe(self) -> str:
        """What is decoded, and how, in three sentences."""
        settings, inputs = self.settings, self.inputs
        count, size = len(inputs.prompts), settings.batch_size
        together = "as one batch" if size >= count else f"{size} at a time"
        how = f"at temperature {settings.temperature:g}" if settings.temperature else "greedy"
        dtype = str(inputs.chat.model.dtype).removeprefix("torch.")
        return (
            f"{inputs.chat.name} in {dtype}, {count} prompts {together}, {settings.max_new_tokens} tokens each at "
            f"most, {how}. Drafter: {inputs.drafter_name}. Budget of a step: {settings.drafts_per_request:g} x running "
            f"requests, for the fixed length and for TETRIS, which may choose among the first {settings.length} drafts "
            "of each."
        )

    def document(self) -> dict[str, Any]:
        """What has been measured so far, as JSON."""
        inputs = self.inputs
        settings = asdict(self.settings) | {
            "model": inputs.chat.name,
            "dtype": str(inputs.chat.model.dtype).removeprefix("torch."),
            "drafter": inputs.drafter_name,
            "prompts": [prompt.name for prompt in inputs.prompts],
        }
        return {
            "machine": machine(inputs.chat.model.device),
            "settings": settings,
            "runs": {name: len(runs) for name, runs in self.runs.items()},
            "policies": [asdict(measurement) for measurement in self.measurements()],
        }
