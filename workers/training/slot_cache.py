"""The sampler's key/value cache: written in place, one slot for each live completion.

A token's column is its position in its own sequence, whatever its neighbours are doing.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from transformers import DynamicCache
from transformers.cache_utils import Cache, CacheLayerMixin


class SlotCache(Cache):
    """Keys and values of up to `slots` sequences. Allocated once; `grow` makes room for longer ones."""

    layers: list[Any]

    def __init__(self, like: DynamicCache, slots: int, columns: int) -> None:
        """`like` is any filled cache of the model: it tells layers, heads, dtype and device."""
        super().__init__(
            layers=[_SlotLayer(keys, values, slots, columns) for keys, values in layer_tensors(like)]
        )

    @property
    def columns(self) -> int:
        """Tokens a slot has room for."""
        return int(self.layers[0].keys.shape[2])

    def grow(self, columns: int) -> None:
        """Give every slot room for more tokens."""
        for layer in self.layers:
            more = columns - layer.keys.shape[2]
            layer.keys = torch.nn.functional.pad(layer.keys, (0, 0, 0, more))
            layer.values = torch.nn.functional.pad(layer.values, (0, 0, 0, more))

    def aim(self, positions: Tensor, width: int) -> None:
        """Say where the next update of slots 0..len(positions) writes, and how many columns it reads."""
        for layer in self.layers:
            layer.rows, layer.positions, layer.width = range_like(positions), positions, width

    def fill(self, first: int, prompts: DynamicCache, repeats: int) -> None:
        """Copy each prompt's keys and values into `repeats` slots, from slot `first` on."""
        for layer, (keys, values) in zip(self.layers, layer_tensors(prompts), strict=True):
            rows, width = len(keys) * repeats, keys.shape[2]
            layer.keys[first : first + rows, :, :width] = keys.repeat_interleave(repeats, 0)
            layer.values[first : first + rows, :, :width] = values.repeat_interleave(repeats, 0)

    def move(self, sources: Tensor, targets: Tensor, width: int) -> None:
        """Move sequences to other slots."""
        for layer in self.layers:
            layer.keys[targets, :, :width] = layer.keys[sources, :, :width]
            layer.values[targets, :, :width] = layer.values[sources, :, :width]


class _SlotLayer(CacheLayerMixin):  # type: ignore[no-untyped-call]
    is_sliding = False
    keys: Tensor
    values: Tensor

    def __init__(self, keys: Tensor, values: Tensor, slots: int, columns: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # Zeros, not empty memory: a hidden column still takes part, times 0.
        self.keys = keys.new_zeros(slots, keys.shape[1], columns, keys.shape[3])
        self.values = values.new_zeros(slots, values.shape[1], columns, values.shape[3])
        self.rows = self.positions = torch.zeros(0, dtype=torch.long)
        self.width = 0
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Nothing to do: allocated from the start."""

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Write one token for each live slot at its position; returns what that token may look at."""
        self.keys[self.rows, :, self.positions] = key_states[:, :, 0]
        self.values[self.rows, :, self.positions] = value_states[:, :, 0]
        live = len(self.rows)
        return self.keys[:live, :, : self.width], self.values[:live, :, : self.width]

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:  # noqa: ARG002
        return self.width, 0

    def get_seq_length(self) -> int:
        return self.width

    def get_max_length(self) -> int:
        return int(self.keys.shape[2])


def layer_tensors(cache: DynamicCache) -> Iterator[tuple[Tensor, Tensor]]:
    """Keys and values of each layer."""
    layers: list[Any] = cache.layers
    for layer in layers:
        yield layer.keys, layer.values


def range_like(rows: Tensor) -> Tensor:
    """0, 1, ... for each row."""
    return torch.arange(len(rows), device=rows.device)
