"""The sampler's keys and values: each prompt's once for all its completions, each completion's own beside.

Everything is written in place. Layout is (slot, head, column, width), so that a head's keys lie together; a
completion's column is the number of its token, a prompt's the token's position.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        allocate: Callable[[tuple[int, ...]], Tensor] | None = None,
    ) -> None:
        """Allocates the memory, by `allocate` if it is given: zeros in the dtype of `like`, on its device."""
        zeros = like.new_zeros if allocate is None else allocate
        self.prompts = [_zeros(layer, zeros, groups, prompt_columns) for layer in layers]
        self.completions = [_zeros(layer, zeros, slots, columns) for layer in layers]
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

    def keep_prompts_in(self, layer: int, slots: Tensor, key: Tensor, value: Tensor) -> None:
        """Keeps (n, heads, width, ...) keys and values of prompts in (n,) slots."""
        for kept, new in zip(self.prompts[layer], (key, value), strict=True):
            kept[slots, :, : new.shape[2]] = new

    def keep_piece(self, layer: int, slot: int, first: int, key: Tensor, value: Tensor) -> None:
        """Keeps (heads, width, ...) keys and values of a prompt in a slot's columns from `first` on."""
        for kept, new in zip(self.prompts[layer], (key, value), strict=True):
            kept[slot, :, first : first + new.shape[1]] = new

    def read_prompt(self, layer: int, slot: int, width: int) -> tuple[Tensor, Tensor]:
        """Returns the first `width` keys and values of a prompt, (heads, width, ...) each."""
        keys, values = self.prompts[layer]
        return keys[slot, :, :width], values[slot, :, :width]

    def copy_of(self, prompt: int, n_prompt: int, row: int, n_row: int) -> list[tuple[Tensor, Tensor]]:
        """Returns keys and values of a prompt's first tokens and of a completion's.

        Per layer (heads, n_prompt + n_row, ...) each.
        """
        return [
            (
                torch.cat([prompts.keys[prompt, :, :n_prompt], own.keys[row, :, :n_row]], 1),
                torch.cat([prompts.values[prompt, :, :n_prompt], own.values[row, :, :n_row]], 1),
            )
            for prompts, own in zip(self.prompts, self.completions, strict=True)
        ]

    def parts_of(self, slot: int, *, is_prompt: bool) -> list[Tensor]:
        """Returns the memory of a slot, in contiguous parts of any shape: (...) each."""
        return [stored[slot] for pair in (self.prompts if is_prompt else self.completions) for stored in pair]

    def move_completions(self, sources: Tensor, targets: Tensor, width: int) -> None:
        """Moves completions of at most `width` tokens from slots, (n,), to other slots, (n,)."""
        for layer in self.completions:
            layer.move(sources, targets, width)

    def move_prompts(self, sources: Tensor, targets: Tensor, width: int) -> None:
        """Moves prompts of at most `width` tokens from slots, (n,), to other slots, (n,)."""
        for layer in self.prompts:
            layer.move(sources, targets, width)


def _zeros(
    layer: LayerShape, zeros: Callable[[tuple[int, ...]], Tensor], slots: int, columns: int
) -> KeyValues:
    # Zeros, not empty memory: a hidden column still takes part, times 0.
    return KeyValues(
        zeros((slots, layer.heads, columns, layer.key_width)),
        zeros((slots, layer.heads, columns, layer.value_width)),
    )


def _widened(stored: Tensor, more: int) -> Tensor:
    return torch.nn.functional.pad(stored, (0, 0, 0, more))
