"""Packed batches through an unmodified `transformers` model, with a key-value cache of its own.

The tokens that `tetris_kernels.pack` lays out, any number from each request, go through the model as one
sequence [1, T], so projections and MLPs compute nothing for padding. Only attention has to know which token is
whose: transformers calls a registered function for it and hands it the keyword arguments of the model's forward.
Ours writes keys and values to a preallocated cache and attends, with queries padded among neighbours that have about
as many.

https://huggingface.co/docs/transformers/attention_interface
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedConfig, PreTrainedModel

from tetris_decode.ragged import Part, Ragged
from tetris_kernels import PackedBatch, Selection, pack

ATTENTION = "tetris_packed"
# Tokens of one request in one forward while a prompt is read: bounds the padding and the attention mask.
PREFILL_CHUNK = 256
# Not cuDNN's, which plans anew for every shape: here each step has others.
BACKENDS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]
# What attention is asked for by some models and not done here.
UNSUPPORTED = ("sliding_window", "softcap", "s_aux", "position_bias")
# Rotations that depend on the longest position of a forward, and so on the other requests in it.
CHANGING_ROPE = ("dynamic", "longrope")
# A forward names its attention function in the config of the model, which others may be using too.
_RUNNING = Lock()


class Forward(NamedTuple):
    """logits: of the token after each, [T, V], or [N, V] for the last ones only. packed: what was run, T slots."""

    logits: Tensor
    packed: PackedBatch


class PackedModel:
    """A causal language model and the key-value cache of one batch.

    Args:
        model: a causal model of transformers, in evaluation mode, whose layers all do plain causal attention
            through `AttentionInterface`. It is left as it was after each forward; during one, nobody else may
            run it. Forwards of this class wait for each other.
        num_requests: N.
        max_len: the most tokens that a request may have, drafts included.

    Raises:
        ValueError: a model in training mode, or one whose layers do something else than plain causal attention;
            some of those are only found out in the first forward.
    """

    def __init__(self, model: PreTrainedModel, num_requests: int, max_len: int) -> None:
        _check(model)
        self.model = model
        self.cache = KVCache(num_requests, max_len)
        # Attention modules look up the name of their function in their config, which need not be the model's.
        configs = (vars(module).get("config") for module in model.modules())
        self._configs = list({id(c): c for c in configs if isinstance(c, PreTrainedConfig)}.values())

    def forward(self, packed: PackedBatch, *, last_only: bool = False) -> Forward:
        """Run the tokens of a packed batch that has at least one; of its padding, nothing.

        Keys and values at the tokens' positions are overwritten, those of lower ones must be there. So rejecting
        drafts is starting again behind the last good token.

        Args:
            packed: of `tetris_kernels.pack`.
            last_only: logits of each request's last token only.
        """
        ragged = Ragged(packed)
        attention = PackedAttention(self.cache, ragged)
        with _RUNNING, self._packed_attention(), sdpa_kernel(BACKENDS):
            output = self.model(
                input_ids=ragged.packed.input_ids[None],
                position_ids=ragged.position[None],
                use_cache=False,
                logits_to_keep=ragged.last_token if last_only else 0,
                packed=attention,
            )
        num_layers = self.model.config.num_hidden_layers
        if not attention.calls == len(self.cache.layers) == num_layers:
            raise ValueError(
                f"model: expected attention through transformers.AttentionInterface once in each of {num_layers} "
                f"layers, got {attention.calls} calls from {len(self.cache.layers)} in {type(self.model).__name__}"
            )
        return Forward(output.logits[0], ragged.packed)

    def read(self, tokens: Tensor, starts: Tensor, ends: Tensor) -> Tensor:
        """Run `tokens[r, starts[r] : ends[r]]` in pieces; [N, V], the logits after the last token of each.

        There must be something to run; the row of a request that has nothing means nothing.
        """
        logits = self.forward(_piece(tokens, starts, ends), last_only=True).logits
        while ((starts := starts + PREFILL_CHUNK) < ends).any():
            piece = self.forward(_piece(tokens, starts, ends), last_only=True).logits
            logits = torch.where((starts < ends)[:, None], piece, logits)
        return logits

    @contextmanager
    def _packed_attention(self) -> Iterator[None]:
        """Have the model's layers call `packed_attention`."""
        names = [config._attn_implementation for config in self._configs]
        try:
            for config in self._configs:
                config._attn_implementation = ATTENTION
            yield
        finally:
            for config, name in zip(self._configs, names, strict=True):
                config._attn_implementation = name


def _piece(tokens: Tensor, starts: Tensor, ends: Tensor) -> PackedBatch:
    """The first PREFILL_CHUNK tokens or fewer of `tokens[r, starts[r] : ends[r]]`."""
    num_requests, width = tokens.shape
    at = starts[:, None] + torch.arange(PREFILL_CHUNK, device=tokens.device)
    # A prompt is packed as an anchor and drafts that are all selected.
    piece = tokens.gather(1, at.clamp(max=width - 1))
    lens = (ends - starts - 1).clamp(0, PREFILL_CHUNK - 1).int()
    return pack(
        Selection.from_lens(lens),
        piece[:, 1:],
        piece[:, 0],
        starts.masked_fill(starts >= ends, -1),
        capacity=num_requests * PREFILL_CHUNK,
    )


def _check(model: PreTrainedModel) -> None:
    name = type(model).__name__
    if model.training:
        raise ValueError("model: expected evaluation mode, as after model.eval(), got training mode")
    layer_types = set(getattr(model.config, "layer_types", None) or ())
    if getattr(model, "_is_stateful", False) or layer_types - {"full_attention"}:
        kinds = ", ".join(sorted(layer_types)) or "a state"
        raise ValueError(f"model: expected plain causal attention in all layers, got {name} with {kinds}")
    rope = next((m.rope_type for m in model.modules() if getattr(m, "rope_type", None) in CHANGING_ROPE), None)
    if rope:
        raise ValueError(f"model: expected fixed rotary frequencies, got {name} with {rope} ones")


class KVCache:
    """Keys and values by layer, [N, heads, max_len, head_dim], allocated when a layer first writes.

    Slots start as zeros, and stale ones keep what a token left there: values of a size that a model makes, which
    the mask keeps out.
    """

    def __init__(self, num_requests: int, max_len: int) -> None:
        self.num_requests = num_requests
        self.max_len = max_len
        self.layers: dict[int, tuple[Tensor, Tensor]] = {}

    def slots(self, request: Tensor, position: Tensor, heads: int) -> Tensor:
        """[heads * T] int64: where each head of the tokens is in a layer, as rows of head_dim."""
        head = torch.arange(heads, device=request.device)[:, None]
        return ((request * heads + head) * self.max_len + position).flatten()

    def write(self, layer: int, slots: Tensor, key: Tensor, value: Tensor) -> None:
        """Write [heads, T, head_dim] at `slots` [heads * T]."""
        if layer not in self.layers:
            size = self.num_requests, key.shape[0], self.max_len
            self.layers[layer] = (key.new_zeros(*size, key.shape[2]), value.new_zeros(*size, value.shape[2]))
        for stored, new in zip(self.layers[layer], (key, value), strict=True):
            stored.flatten(0, 2).index_copy_(0, slots, new.flatten(0, 1))

    def read(self, layer: int, part: Part) -> tuple[Tensor, Tensor]:
        """Keys and values of a part's requests, [n, heads, context, head_dim], as views."""
        keys, values = self.layers[layer]
        return keys[part.rows, :, : part.context], values[part.rows, :, : part.context]


class PackedAttention:
    """What the layers of one forward share.

    Queries of a part are padded to [n, L], and query heads that share a key head become further queries of it, so
    that no key is read twice or copied. Both at once is one gather of rows of head_dim, and undoing it another.
    """

    def __init__(self, cache: KVCache, ragged: Ragged) -> None:
        self.cache = cache
        self.ragged = ragged
        self.calls = 0
        self._layouts: dict[tuple[int, int], Layout] = {}

    def __call__(self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float | None) -> Tensor:
        """query [heads, T, head_dim], key and value [kv_heads, T, head_dim] -> [T, heads, head_dim], that of values."""
        self.calls += 1
        heads, num_tokens, head_dim = query.shape
        shape = heads, key.shape[0]
        if shape not in self._layouts:
            self._layouts[shape] = Layout.of(self.cache, self.ragged, *shape, query.dtype)
        layout = self._layouts[shape]
        self.cache.write(layer, layout.slots, key, value)
        rows, outs = query.reshape(-1, head_dim), []
        for part, fold, mask in zip(self.ragged.parts, layout.folds, layout.masks, strict=True):
            keys, values = self.cache.read(layer, part)
            folded = rows.index_select(0, fold).view(*keys.shape[:2], -1, head_dim)
            out = scaled_dot_product_attention(folded, keys, values, attn_mask=mask, scale=scaling)
            outs.append(out.reshape(-1, value.shape[2]))
        out = outs[0] if len(outs) == 1 else torch.cat(outs)
        return out.index_select(0, layout.unfold).view(num_tokens, heads, value.shape[2])


class Layout(NamedTuple):
    """How queries [heads, T] become [n, kv_heads, heads / kv_heads * L] for each part, as rows of head_dim.

    slots:  where keys and values are written, see `KVCache.slots`.
    folds:  for each part the row of each of the latter.
    masks:  for each part [n, 1, heads / kv_heads * L, context], 0 for keys up to the query's own position and -inf
            beyond. None if every query sees all.
    unfold: the row of each [T, heads] among the latter of all parts.
    """

    slots: Tensor
    folds: list[Tensor]
    masks: list[Tensor | None]
    unfold: Tensor

    @classmethod
    def of(cls, cache: KVCache, ragged: Ragged, heads: int, kv_heads: int, dtype: torch.dtype) -> Layout:
        head = torch.arange(heads, device=ragged.request.device)
        num_tokens = len(ragged.request)
        return cls(
            slots=cache.slots(ragged.request, ragged.position, kv_heads),
            folds=[(part.tokens[:, None, :] + head[:, None] * num_tokens).flatten() for part in ragged.parts],
            masks=[_mask(ragged, part, heads // kv_heads, dtype) for part in ragged.parts],
            unfold=(ragged.base[:, None] * heads + ragged.stride[:, None] * head + ragged.slot[:, None]).flatten(),
        )


def _mask(ragged: Ragged, part: Part, repeats: int, dtype: torch.dtype) -> Tensor | None:
    if part.sees_all:
        return None
    position = ragged.position[part.tokens]
    beyond = torch.arange(part.context, device=position.device) > position[:, :, None]
    slots = torch.zeros(beyond.shape, dtype=dtype, device=position.device).masked_fill_(beyond, -torch.inf)
    return slots.repeat(1, repeats, 1).unsqueeze(1)


def packed_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    packed: PackedAttention | None = None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[Tensor, None]:
    """The function that transformers calls in each layer: [1, heads, T, head_dim] -> [1, T, heads, head_dim]."""
    name = type(module).__name__
    if packed is None:
        raise ValueError(
            f"model: expected its forward to hand keyword arguments to attention, got none in {name}; "
            f"or it was run by others in the middle of a forward of PackedModel"
        )
    options["attention_mask"] = attention_mask
    asked = [option for option in (*UNSUPPORTED, "attention_mask") if options.get(option) is not None]
    if asked:
        raise ValueError(f"model: expected plain causal attention, got {name} with {', '.join(asked)}")
    return packed(module.layer_idx, query[0], key[0], value[0], scaling)[None], None


# A name that has a function and no mask: transformers then builds no mask for it.
AttentionInterface.register(ATTENTION, packed_attention)
