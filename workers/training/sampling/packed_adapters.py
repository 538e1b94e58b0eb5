"""LoRA adapters in the panels that the compiled decode step reads (`kernels.low_rank`)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workers.training.kernels.low_rank import DOWN, OUT, Adapters, Floats
from workers.training.kernels.panels import PANEL, pack
from workers.training.model.adapter_rows import LowRank
from workers.training.model.parts import decoder_of
from workers.training.sampling.lean_decoder import linears


@cache
def no_adapters(layers: int) -> Adapters:
    """Returns what a step without adapters is given."""
    nothing, places = np.zeros(PANEL, np.float32), np.zeros((0, layers, DOWN + 1, 3), np.int64)
    return Adapters(nothing, places, np.zeros(0, np.int64), np.int64(PANEL))


def packed_adapters(model: Any, adapters: Mapping[int, Mapping[str, LowRank]]) -> Adapters:
    """Packs adapters by number; `of_slot` is still empty.

    Raises `ValueError` if one is of a layer that is none of the seven linear ones of each decoder layer.
    """
    layers, heads = decoder_of(model).layers, model.config.num_attention_heads
    names = {module: name for name, module in model.named_modules()}
    places_of = {
        names[linear]: (i, k) for i, layer in enumerate(layers) for k, linear in enumerate(linears(layer))
    }
    places = np.zeros((max(adapters, default=-1) + 1, len(layers), DOWN + 1, 3), np.int64)
    pieces: list[Floats] = []
    used = widest = 0
    for number, adapter in adapters.items():
        for name, (down, up) in adapter.items():
            if name not in places_of:
                raise ValueError(
                    f"An adapter is of the layer {name!r}, which the compiled step has none for."
                )
            layer, linear = places_of[name]
            lower = _panels(padded_heads(down, heads) if linear == OUT else down, whole_inputs=True)
            upper = _panels(up, whole_inputs=False)
            places[number, layer, linear] = used, used + lower.size, len(down)
            pieces += [lower.reshape(-1), upper.reshape(-1)]
            used += lower.size + upper.size
            widest = max(widest, lower.shape[0] * PANEL)
    numbers = np.concatenate(pieces) if pieces else np.zeros(PANEL, np.float32)
    return Adapters(numbers, places, np.zeros(0, np.int64), np.int64(max(widest, PANEL)))


def _panels(weight: Tensor, *, whole_inputs: bool) -> Floats:
    """Packs (outputs, inputs); `whole_inputs`: as many inputs as whole panels hold, the last 0."""
    outputs, inputs = weight.shape
    rows = -(-inputs // PANEL) * PANEL if whole_inputs else inputs
    panels = np.zeros((-(-outputs // PANEL), rows, PANEL), np.float32)
    pack(weight.detach().float().contiguous().numpy(), 0, panels)
    return panels


def padded_heads(weight: Tensor, heads: int) -> Tensor:
    """Pads each head: (outputs, heads * D) -> (outputs, heads * Dp)."""
    D = weight.shape[1] // heads
    return torch.nn.functional.pad(weight.view(len(weight), heads, D), (0, -D % PANEL)).flatten(1)
