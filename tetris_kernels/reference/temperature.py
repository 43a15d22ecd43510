"""What a temperature does to logits."""

from __future__ import annotations

import torch
from torch import Tensor

# Keeps masked logits of -inf as they are when a temperature is infinite, and differences of 0 when it is tiny.
MIN_SCALE, MAX_SCALE = 2.0**-64, 2.0**64


def centred(logits: Tensor, temperature: Tensor | None, host_temperature: float) -> Tensor:
    """[..., V] float32: (logits - their maximum) / temperature, as softmax takes them; a fresh tensor.

    temperature: None or of the shape [...]. One that is not above 0 counts as 1.
    """
    # The maximum goes first: scaling large logits would cost them bits that their differences need.
    logits = logits.detach().float()
    logits = logits - logits.amax(-1, keepdim=True)
    if temperature is not None:
        temperature = temperature.detach()
        scale = torch.where(temperature > 0, 1 / temperature, 1.0).clamp_(MIN_SCALE, MAX_SCALE)
        return logits.mul_(scale.unsqueeze(-1))
    if host_temperature > 0 and host_temperature != 1:
        return logits.mul_(min(max(1 / host_temperature, MIN_SCALE), MAX_SCALE))
    return logits
