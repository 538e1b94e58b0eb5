"""The compiled sampler's keys and values, in the panels that its kernels read (`kernels.attend`).

The same as `SlotCache` otherwise: each prompt's once for all its completions, each completion's own beside.
All layers lie in one tensor. There is room for every completion's last token from the start: memory that
nothing was written to is not held.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from workers.training.kernels.attend import Stored
from workers.training.kernels.tile import PANEL
from workers.training.slot_cache import LayerShape


class Panels(NamedTuple):
    """(L, slots, kv_heads, blocks of 16 columns, D, 16) and (L, slots, kv_heads, Dp / 16, columns, 16)."""

    keys: Tensor
    values: Tensor


class PanelCache:
    """Room for `groups` prompts and `slots` completions of all layers, which are alike."""

    def __init__(
        self, layers: int, like: LayerShape, *, groups: int, prompt_columns: int, slots: int, columns: int
    ) -> None:
        self.prompts = _panels(layers, like, groups, prompt_columns)
        self.completions = _panels(layers, like, slots, columns)
        self.groups = groups
        self.slots = slots
        self.columns = columns

    @property
    def nbytes(self) -> int:
        """Memory that is held once everything has been written to."""
        return sum(tensor.nbytes for panels in (self.prompts, self.completions) for tensor in panels)

    def grow(self, columns: int) -> None:
        """There is room already."""
        assert columns <= self.columns

    def keep_prompts(self, layer: int, first: int, key: Tensor, value: Tensor) -> None:
        """Keep (n, kv_heads, width, D) keys and values of prompts in the slots from `first` on."""
        n, heads, width, D = key.shape
        blocks, (keys, values) = _blocks(width), self.prompts
        key = torch.nn.functional.pad(key, (0, 0, 0, blocks * PANEL - width))
        value = torch.nn.functional.pad(value, (0, values.shape[3] * PANEL - D))
        keys[layer, first : first + n, :, :blocks] = key.view(n, heads, blocks, PANEL, D).transpose(3, 4)
        values[layer, first : first + n, ..., :width, :] = value.view(n, heads, width, -1, PANEL).transpose(
            2, 3
        )

    def move_completions(self, sources: Tensor, targets: Tensor, width: int) -> None:
        """Move completions of at most `width` tokens to other slots."""
        _move(self.completions, sources, targets, width)

    def move_prompts(self, sources: Tensor, targets: Tensor, width: int) -> None:
        """Move prompts of at most `width` tokens to other slots."""
        _move(self.prompts, sources, targets, width)

    def arrays(self) -> tuple[Stored, Stored]:
        """Prompts and completions as the kernels take them."""
        prompts, completions = (
            Stored(*(tensor.numpy() for tensor in panels)) for panels in (self.prompts, self.completions)
        )
        return prompts, completions


def _panels(layers: int, like: LayerShape, slots: int, columns: int) -> Panels:
    keys = torch.empty(layers, slots, like.heads, _blocks(columns), like.key_width, PANEL)
    values = torch.empty(layers, slots, like.heads, -(-like.value_width // PANEL), columns, PANEL)
    return Panels(keys, values)


def _move(panels: Panels, sources: Tensor, targets: Tensor, width: int) -> None:
    keys, values = panels
    blocks = _blocks(width)
    keys[:, targets, :, :blocks] = keys[:, sources, :, :blocks]
    values[:, targets, ..., :width, :] = values[:, sources, ..., :width, :]


def _blocks(columns: int) -> int:
    return -(-columns // PANEL)
