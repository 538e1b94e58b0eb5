"""Which way of decoding a model gets, and the cache that goes with it."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from workers.training.sampling.decode_attention import decode, layer_shapes
from workers.training.sampling.decode_step import ActiveRows, exact_step
from workers.training.sampling.lean_decoder import is_known, lean_decoder, linears
from workers.training.sampling.slot_cache import SlotCache
from workers.training.sampling.static_decoder import StaticDecoder

if TYPE_CHECKING:
    from workers.training.sampling.panel_cache import PanelCache

COMPILED_FROM = 16
"""Tokens that a call may sample from which copying the weights into panels pays."""

COMPILED_BYTES = 256 << 20
"""Largest weights that are decoded by compiled kernels, times the threads that each read all of them."""

LEAN_FROM = 16
"""Completions in a call from which copying the weights for the lean decoder pays."""

STATIC_ROPE = ("default", "linear", "llama3", "yarn")
"""Where a position's rotation does not depend on the length of the sequence."""


class CacheSize(NamedTuple):
    """What a cache is to hold."""

    groups: int
    prompt_columns: int
    slots: int
    columns: int
    """Tokens of a completion, at first."""
    most_columns: int
    """Tokens of the longest completion."""


Decode = Callable[[ActiveRows, Tensor], Tensor]
"""Reads the last tokens (B,) of active completions and returns the logits of the next, (B, V)."""


def make_decoder(
    model: Any, size: CacheSize, samples: int, n_completions: int
) -> tuple[SlotCache | PanelCache, Decode]:
    """A cache and what decodes over it, for `n_completions`, `samples` of each prompt."""
    if n_completions * size.most_columns >= COMPILED_FROM and can_be_compiled(model):
        return _compiled(model, size)
    cache = slot_cache(model, size)
    if model.device.type == "cuda":
        return cache, StaticDecoder(model, cache, samples)
    lean = lean_decoder(model) if n_completions >= LEAN_FROM else None
    if lean is not None:
        return cache, lambda active, ids: lean.decode(cache, exact_step(active, ids))
    return cache, lambda active, ids: decode(model, cache, exact_step(active, ids))


def slot_cache(model: Any, size: CacheSize) -> SlotCache:
    """What all but the compiled decoder read."""
    return SlotCache(
        *layer_shapes(model, model.device),
        groups=size.groups,
        prompt_columns=size.prompt_columns,
        slots=size.slots,
        columns=size.columns,
    )


def _compiled(model: Any, size: CacheSize) -> tuple[PanelCache, Decode]:
    from workers.training.sampling.compiled_decoder import CompiledDecoder
    from workers.training.sampling.panel_cache import PanelCache

    layers, _ = layer_shapes(model, model.device)
    cache = PanelCache(
        layers,
        groups=size.groups,
        prompt_columns=size.prompt_columns,
        slots=size.slots,
        columns=size.most_columns,
    )
    return cache, CompiledDecoder(model, cache, size.prompt_columns + size.most_columns)


def can_be_compiled(model: Any) -> bool:
    """Whether the compiled kernels do all that this model does, in fp32, and its weights are few enough."""
    if not is_known(model):
        return False
    decoder, head = model.get_decoder(), model.get_output_embeddings()
    weights = [*decoder.parameters(), head.weight]
    others = [linear for layer in decoder.layers for linear in linears(layer)[3:]]
    return (
        all(tensor.dtype == torch.float32 for tensor in weights)
        and sum(tensor.nbytes for tensor in weights) * torch.get_num_threads() <= COMPILED_BYTES
        and all(linear.bias is None for linear in (*others, head))
        and decoder.config.hidden_act == "silu"
        and decoder.config.rope_parameters["rope_type"] in STATIC_ROPE
    )
