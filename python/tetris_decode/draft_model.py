"""A model that drafts: any causal model with the target's vocabulary, or the target with fewer layers."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel

from tetris_decode.batch import Batch
from tetris_decode.drafting import Drafts
from tetris_decode.packed import PackedModel


class ModelDrafter:
    """Drafts the most probable token of a causal language model, one forward per draft.

    It keeps a key-value cache of its own and runs only what is new: the tokens that were not its own drafts.

    Args:
        model: a causal model of transformers with the target's vocabulary, such as `PackedModel` takes.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model

    @property
    def vocab_size(self) -> int:
        size: int = self.model.config.vocab_size
        return size

    def start(self, batch: Batch) -> None:
        self._packed = PackedModel(self.model, *batch.tokens.shape)
        # What the cache was made from: the first `_cached[r]` tokens of each row.
        self._tokens = batch.tokens.clone()
        self._cached = batch.lens
        self._packed.read(batch.tokens, torch.zeros_like(batch.lens), batch.lens)

    def propose(self, batch: Batch, num_drafts: int) -> Drafts:
        lens = batch.max_drafts.clamp(max=num_drafts)
        ids = batch.tokens.new_zeros(len(lens), num_drafts)
        logprobs = torch.full(ids.shape, -torch.inf, device=ids.device)
        starts = self._still_valid(batch)
        longest = int(lens.max())
        for j in range(longest):
            if j == 0:
                logits = self._packed.read(batch.tokens, starts, torch.where(lens > 0, batch.lens, starts))
            else:
                batch.put_drafts(ids[:, :j])
                logits = self._run_draft(batch, j - 1, lens > j)
            logprobs[:, j], ids[:, j] = logits.float().log_softmax(-1).max(-1)
        self._tokens.copy_(batch.tokens)
        self._cached = torch.where(lens > 0, batch.lens + lens - 1, starts)
        return Drafts(ids, logprobs, lens)

    def _run_draft(self, batch: Batch, j: int, wanted: Tensor) -> Tensor:
        """[N, V], the logits after draft j of the wanted requests."""
        return self._packed.forward(batch.tokens, batch.lens + j, wanted.long(), last_only=True).logits

    def _still_valid(self, batch: Batch) -> Tensor:
        """[N]: leading tokens that are in the cache, without the last: its logits are wanted, so it is run again."""
        same = (self._tokens == batch.tokens).int().cumprod(1).sum(1)
        return torch.minimum(torch.minimum(same, self._cached), batch.lens - 1)


def skip_layers(model: PreTrainedModel, skipped: Sequence[int]) -> PreTrainedModel:
    """`model` without some of its decoder layers, for `ModelDrafter`: it takes no memory.

    The layers that stay are shared, not copied, and `model` does not change. The layers keep their numbers, so
    that transformers' own caches do not fit the result.

    Raises:
        ValueError: a layer that `model` does not have, or all of them; a model that keeps its layers elsewhere.
    """
    base: Any = model.base_model
    layers = getattr(base, "layers", None)
    if layers is None:
        raise ValueError(f"model: expected decoder layers in base_model.layers, got {type(base).__name__} without")
    kept = [layer for i, layer in enumerate(layers) if i not in set(skipped)]
    if len(kept) + len(set(skipped)) != len(layers) or not kept:
        raise ValueError(f"skipped: expected some of layers 0 to {len(layers) - 1}, got {list(skipped)}")
    config = copy.deepcopy(model.config)
    config.num_hidden_layers = len(kept)
    decoder = _shallow_copy(base, config, layers=nn.ModuleList(kept))
    return _shallow_copy(model, config, **{model.base_model_prefix: decoder})


def _shallow_copy(module: PreTrainedModel, config: PreTrainedConfig, **children: nn.Module) -> PreTrainedModel:
    """`module` with some of its children replaced; the others are shared."""
    twin = copy.copy(module)
    twin._modules = {**module._modules, **children}
    twin.config = config
    return twin
