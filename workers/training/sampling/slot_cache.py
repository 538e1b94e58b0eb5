"""The sampler's keys and values: each prompt's once for all its completions, each completion's own beside.

Everything is written in place. Layout is (slot, head, column, width), so that a head's keys lie together; a
completion's column is the number of its token, a prompt's the token's position.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class LayerShape(NamedTuple):
    """Says what one attention layer keeps for a token."""

    heads: int
    key_width: int
    value_width: int

    @property
    def numbers(self) -> int:
        """Counts the numbers kept for each token."""
        return self.heads * (self.key_width + self.value_width)


class KeyValues(NamedTuple):
    """Holds one layer's keys and values: (slots, heads, columns, width) each."""

    keys: Tensor
    values: Tensor

    def move(self, sources: Tensor, targets: Tensor, width: int) -> None:
        """Copies the first `width` columns of some slots, (n,), over those of others, (n,)."""
        for stored in self:
            stored[targets, :, :width] = stored[sources, :, :width]


class SlotCache:
    """Has room for `groups` prompts and `slots` completions. It is allocated once; `grow` adds columns."""

    def __init__(
        self,
        layers: Sequence[LayerShape],
        like: Tensor,
        *,
        groups: int,
        prompt_columns: int,
        slots: int,
        columns: int,
    ) -> None:
        """Allocates the memory. `like`, of any shape, tells dtype and device."""
        self.prompts = [_zeros(layer, like, groups, prompt_columns) for layer in layers]
        self.completions = [_zeros(layer, like, slots, columns) for layer in layers]
        self.groups = groups
        self.slots = slots

    @property
    def prompt_columns(self) -> int:
        """Returns how many tokens a prompt has room for."""
        return int(self.prompts[0].keys.shape[2])

    @property
    def columns(self) -> int:
        """Returns how many tokens a completion has room for."""
        return int(self.completions[0].keys.shape[2])

    @property
    def nbytes(self) -> int:
        """Returns the memory held."""
        stored = [*self.prompts, *self.completions]
        return sum(pair.keys.nbytes + pair.values.nbytes for pair in stored)

    def grow(self, columns: int) -> None:
        """Gives every completion room for more tokens."""
        more = columns - self.columns
        for i, (keys, values) in enumerate(self.completions):  # one layer at a time, to hold little twice
            self.completions[i] = KeyValues(_widened(keys, more), _widened(values, more))

    def keep_prompts(self, layer: int, first: int, key: Tensor, value: Tensor) -> None:
        """Keeps (n, heads, width, ...) keys and values of prompts in the slots from `first` on."""
        n, width = key.shape[0], key.shape[2]
        for kept, new in zip(self.prompts[layer], (key, value), strict=True):
            kept[first : first + n, :, :width] = new

    def move_completions(self, sources: Tensor, targets: Tensor, width: int) -> None:
        """Moves completions of at most `width` tokens from slots, (n,), to other slots, (n,)."""
        for layer in self.completions:
            layer.move(sources, targets, width)

    def move_prompts(self, sources: Tensor, targets: Tensor, width: int) -> None:
        """Moves prompts of at most `width` tokens from slots, (n,), to other slots, (n,)."""
        for layer in self.prompts:
            layer.move(sources, targets, width)


def _zeros(layer: LayerShape, like: Tensor, slots: int, columns: int) -> KeyValues:
    # Zeros, not empty memory: a hidden column still takes part, times 0.
    return KeyValues(
        like.new_zeros(slots, layer.heads, columns, layer.key_width),
        like.new_zeros(slots, layer.heads, columns, layer.value_width),
    )


def _widened(stored: Tensor, more: int) -> Tensor:
    return torch.nn.functional.pad(stored, (0, 0, 0, more))
