"""Decode steps of Llama and Qwen models on a CPU in fp32, each one call of a compiled kernel.

The weights are copied into the panels that the kernel reads, for one call of the sampler, so nothing has to
follow an update. Several threads share the completions out among themselves, and each reads all weights:
that pays as long as the processor's cache holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers.training.decode_step import Live
from workers.training.kernels.attend import Floats, Rows
from workers.training.kernels.decode import Weights, decode
from workers.training.kernels.tile import PANEL
from workers.training.lean_decoder import linears
from workers.training.panel_cache import PanelCache


class CompiledDecoder:
    """Decodes what is live in one cache."""

    def __init__(self, model: Any, cache: PanelCache, positions: int) -> None:
        """`positions`: of the longest sequence."""
        self._cache = cache
        self._weights = packed_weights(model, positions)
        self._prompts, self._completions = cache.arrays()
        self._logits = torch.empty(cache.slots, len(self._weights.embedding))

    def __call__(self, live: Live, ids: Tensor) -> Tensor:
        """Logits of the next token of each live completion, given its last: (B,) -> (B, V).

        They are overwritten by the next call.
        """
        rows = Rows(live.by_group, live.group, live.counts, live.prompt_lengths)
        decode(rows, ids.numpy(), self._weights, self._prompts, self._completions, self._logits.numpy())
        return self._logits[: len(ids)]


def packed_weights(model: Any, positions: int) -> Weights:
    """A model's weights in panels; `positions`: of the longest sequence."""
    decoder, config = model.get_decoder(), model.config
    heads, kv_heads = config.num_attention_heads, config.num_key_value_heads
    layers, norm, attention = decoder.layers, decoder.norm, decoder.layers[0].self_attn
    cos, sin = decoder.rotary_emb(decoder.embed_tokens.weight, torch.arange(positions)[None])
    half = cos.shape[-1] // 2
    return Weights(
        embedding=_array(decoder.embed_tokens.weight),
        qkv=_stacked(layers, lambda layer: _after(layer.input_layernorm, *linears(layer)[:3])),
        qkv_bias=_array(torch.stack([_bias(linears(layer)[:3]) for layer in layers])),
        head_norm=_array(torch.stack([_head_norm(layer.self_attn, heads, kv_heads) for layer in layers])),
        out=_stacked(layers, lambda layer: _padded_heads(linears(layer)[3].weight, heads)),
        gate=_stacked(layers, lambda layer: _after(layer.post_attention_layernorm, linears(layer)[4])),
        up=_stacked(layers, lambda layer: _after(layer.post_attention_layernorm, linears(layer)[5])),
        down=_stacked(layers, lambda layer: _padded(linears(layer)[6].weight, 1)),
        head=_array(_panels(_after(norm, model.get_output_embeddings()))),
        cos=_array(cos[0, :, :half]),
        sin=_array(sin[0, :, :half]),
        eps=np.float32(norm.variance_epsilon),
        head_eps=np.float32(attention.q_norm.variance_epsilon if hasattr(attention, "q_norm") else 0),
        scaling=np.float32(attention.scaling),
    )


def _array(tensor: Tensor) -> Floats:
    found: Floats = tensor.detach().contiguous().numpy()
    return found


def _after(norm: Any, *following: Any) -> Tensor:
    """The weights of the layers that read a norm's result, with its own: (outputs, inputs)."""
    return torch.cat([linear.weight for linear in following]) * norm.weight


def _bias(linears: Sequence[Any]) -> Tensor:
    """Their biases side by side, (panels * 16,)."""
    biases = [
        linear.weight.new_zeros(len(linear.weight)) if linear.bias is None else linear.bias
        for linear in linears
    ]
    return _padded(torch.cat(biases), 0)


def _head_norm(attention: Any, heads: int, kv_heads: int) -> Tensor:
    if not hasattr(attention, "q_norm"):
        return torch.empty(0, 0)
    return torch.stack([attention.q_norm.weight] * heads + [attention.k_norm.weight] * kv_heads)


def _padded_heads(weight: Tensor, heads: int) -> Tensor:
    """(outputs, heads * D) -> (outputs, heads * Dp)."""
    return _padded(weight.view(len(weight), heads, -1), 2).flatten(1)


def _padded(tensor: Tensor, dim: int) -> Tensor:
    """With zeros up to whole panels."""
    more = [0, 0] * (tensor.ndim - 1 - dim) + [0, -tensor.shape[dim] % PANEL]
    return torch.nn.functional.pad(tensor, more)


def _panels(weight: Tensor) -> Tensor:
    """(outputs, inputs) -> (panels, inputs, 16)."""
    return _padded(weight, 0).view(-1, PANEL, weight.shape[1]).transpose(1, 2)


def _stacked(layers: Sequence[Any], weight: Callable[[Any], Tensor]) -> Floats:
    """One weight of each layer in panels: (L, panels, inputs, 16)."""
    panels = _panels(weight(layers[0]))
    stacked = panels.new_empty(len(layers), *panels.shape)
    for i, layer in enumerate(layers):
        stacked[i] = _panels(weight(layer))
    return _array(stacked)
