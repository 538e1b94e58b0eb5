"""The compiled sampler's keys and values, in the panels that its kernels read (`kernels.attend`).

The same as `SlotCache` otherwise: each prompt's once for all its completions, each completion's own beside.
All layers lie in one tensor. There is room for every completion's last token from the start: memory that
nothing was written to is not held.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from workers.training.kernels.attend import KeyValueArrays
from workers.training.kernels.panels import PANEL
from workers.training.sampling.slot_cache import LayerShape


class Panels(NamedTuple):
    """Holds keys, (L, slots, kv_heads, blocks of 16 columns, D, 16), and values.

    Values are (L, slots, kv_heads, Dp / 16, columns, 16).
    """

    keys: Tensor
    values: Tensor

    def keep(self, layer: int, first: int, key: Tensor, value: Tensor) -> None:
        """Keeps (n, kv_heads, width, D) keys and values in the slots from `first` on."""
        n, heads, width, D = key.shape
        blocks = _blocks(width)
        key = torch.nn.functional.pad(key, (0, 0, 0, blocks * PANEL - width))
        value = torch.nn.functional.pad(value, (0, self.values.shape[3] * PANEL - D))
        key = key.view(n, heads, blocks, PANEL, D).transpose(3, 4)
        value = value.view(n, heads, width, -1, PANEL).transpose(2, 3)
        self.keys[layer, first : first + n, :, :blocks] = key
        self.values[layer, first : first + n, ..., :width, :] = value

    def move(self, sources: Tensor, targets: Tensor, width: int) -> None:
        """Copies the first `width` columns of some slots, (n,), over those of others, (n,)."""
        blocks = _blocks(width)
        self.keys[:, targets, :, :blocks] = self.keys[:, sources, :, :blocks]
        self.values[:, targets, ..., :width, :] = self.values[:, sources, ..., :width, :]

    def arrays(self) -> KeyValueArrays:
        """Returns the arrays that the kernels take."""
        return KeyValueArrays(self.keys.numpy(), self.values.numpy())


class PanelCache:
    """Has room for `groups` prompts and `slots` completions in fp32."""

    def __init__(
        self, layers: Sequence[LayerShape], *, groups: int, prompt_columns: int, slots: int, columns: int
    ) -> None:
        """Allocates the memory. All `layers` are alike."""
        self.prompts = _panels(layers, groups, prompt_columns)
        self.completions = _panels(layers, slots, columns)
        self.groups = groups
        self.slots = slots
        self.columns = columns

    @property
    def nbytes(self) -> int:
        """Returns the memory that is held once everything has been written to."""
        return sum(tensor.nbytes for panels in (self.prompts, self.completions) for tensor in panels)

    def grow(self, columns: int) -> None:
        """Does nothing: there is room already."""
        assert columns <= self.columns

    def keep_prompts(self, layer: int, first: int, key: Tensor, value: Tensor) -> None:
        """Keeps (n, kv_heads, width, D) keys and values of prompts in the slots from `first` on."""
        self.prompts.keep(layer, first, key, value)

    def move_completions(self, sources: Tensor, targets: Tensor, width: int) -> None:
        """Moves completions of at most `width` tokens from slots, (n,), to other slots, (n,)."""
        self.completions.move(sources, targets, width)

    def move_prompts(self, sources: Tensor, targets: Tensor, width: int) -> None:
        """Moves prompts of at most `width` tokens from slots, (n,), to other slots, (n,)."""
        self.prompts.move(sources, targets, width)

    def arrays(self) -> tuple[KeyValueArrays, KeyValueArrays]:
        """Returns prompts and completions as the kernels take them."""
        return self.prompts.arrays(), self.completions.arrays()


def _panels(layers: Sequence[LayerShape], slots: int, columns: int) -> Panels:
    (like,) = set(layers)
    keys = torch.empty(len(layers), slots, like.heads, _blocks(columns), like.key_width, PANEL)
    values = torch.empty(len(layers), slots, like.heads, _blocks(like.value_width), columns, PANEL)
    return Panels(keys, values)


def _blocks(n: int) -> int:
    return -(-n // PANEL)
