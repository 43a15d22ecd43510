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
from tetris_kernels import Selection, pack, score


class ModelDrafter:
    """Drafts the tokens of a causal language model, one forward per draft: the most probable ones, or drawn ones.

    It draws where the batch does, at each request's temperature and without top-p: drafts that the target's top-p
    leaves out are rejected. It keeps a key-value cache of its own and runs
    only what is new: the tokens that were not its own drafts.

    Args:
        model: a causal model of transformers with the target's vocabulary, such as `PackedModel` takes.
        score: which estimate of a draft is compared, a kind of `tetris_kernels.score`.
    """

    def __init__(self, model: PreTrainedModel, *, score: str = "token") -> None:
        self.model = model
        self.score = score

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
        uniforms = batch.sampling.uniforms(num_drafts)
        logits = torch.zeros(*ids.shape, self.vocab_size, device=ids.device)
        starts = self._still_valid(batch)
        for j in range(int(lens.max())):
            if j == 0:
                last = self._packed.read(batch.tokens, starts, torch.where(lens > 0, batch.lens, starts))
            else:
                last = self._run_drafts(ids[:, j - 1], torch.where(lens > j, batch.lens + j - 1, -1))
            logits[:, j] = batch.sampling.scaled(last)
            ids[:, j] = batch.sampling.draw(logits[:, j], uniforms[:, j])
        self._remember(batch, ids, torch.where(lens > 0, batch.lens + lens - 1, starts))

        logprobs = score(logits, ids, kind=self.score, draft_lens=lens)
        return Drafts(ids, logprobs, lens, None if batch.sampling.is_greedy else logits, kind=self.score)

    def _run_drafts(self, ids: Tensor, positions: Tensor) -> Tensor:
        """[N, V], the logits after one draft of each request [N] at its position; negative: it sits out."""
        none = ids.new_empty(len(ids), 0)
        alone = Selection.from_lens(torch.zeros_like(ids, dtype=torch.int32))
        packed = pack(alone, none, ids, positions, capacity=len(ids))
        return self._packed.forward(packed, last_only=True).logits

    def _still_valid(self, batch: Batch) -> Tensor:
        """[N]: leading tokens that are in the cache, without the last: its logits are wanted, so it is run again."""
        same = (self._tokens == batch.tokens).int().cumprod(1).sum(1)
        return torch.minimum(torch.minimum(same, self._cached), batch.lens - 1)

    def _remember(self, batch: Batch, ids: Tensor, cached: Tensor) -> None:
        """The cache is of the batch's tokens and the drafts [N, K] behind them, `cached[r]` of each row."""
        at = batch.lens[:, None] + torch.arange(ids.shape[1], device=ids.device)
        self._tokens = batch.tokens.scatter(1, at, ids)
        self._cached = cached


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
