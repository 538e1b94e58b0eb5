"""The compiled sampler's keys and values, in the panels that its kernels read (`kernels.attend`).

The same as `SlotCache` otherwise: each prompt's once for all its completions, each completion's own beside.
All layers lie in one tensor. There is room for every completion's last token from the start: memory that
nothing was written to is not held.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
        self.keep_in(layer, slice(first, first + len(key)), key, value)

    def keep_in(self, layer: int, slots: slice | Tensor, key: Tensor, value: Tensor) -> None:
        """Keeps (n, kv_heads, width, D) keys and values in (n,) slots, from their first column on."""
        n, heads, width, D = key.shape
        blocks = _blocks(width)
        key = torch.nn.functional.pad(key, (0, 0, 0, blocks * PANEL - width))
        value = torch.nn.functional.pad(value, (0, self.values.shape[3] * PANEL - D))
        key = key.view(n, heads, blocks, PANEL, D).transpose(3, 4)
        value = value.view(n, heads, width, -1, PANEL).transpose(2, 3)
        self.keys[layer, slots, :, :blocks] = key
        self.values[layer, slots, ..., :width, :] = value

    def keep_at(self, layer: int, slot: int, first: int, key: Tensor, value: Tensor) -> None:
        """Keeps (kv_heads, width, D) keys and values in a slot's columns from `first` on."""
        columns = torch.arange(first, first + key.shape[1])
        value = torch.nn.functional.pad(value, (0, self.values.shape[3] * PANEL - value.shape[2]))
        self.keys[layer, slot, :, columns // PANEL, :, columns % PANEL] = key.transpose(0, 1)
        value = value.view(len(value), len(columns), -1, PANEL).transpose(1, 2)
        self.values[layer, slot, :, :, first : first + len(columns)] = value

    def read(self, layer: int | slice, slot: int, width: int) -> tuple[Tensor, Tensor]:
        """Returns keys and values of a slot's first `width` columns, (..., kv_heads, width, D) each."""
        D = self.keys.shape[4]
        keys = self.keys[layer, slot, :, : _blocks(width)].transpose(-1, -2).flatten(-3, -2)
        values = self.values[layer, slot, :, :, :width].transpose(-2, -3).flatten(-2)
        return keys[..., :width, :], values[..., :D]

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
        self,
        layers: Sequence[LayerShape],
        *,
        groups: int,
        prompt_columns: int,
        slots: int,
        columns: int,
        allocate: Callable[[tuple[int, ...]], Tensor] = torch.empty,
    ) -> None:
        """Allocates the memory. All `layers` are alike."""
        self.prompts = _panels(layers, groups, prompt_columns, allocate)
        self.completions = _panels(layers, slots, columns, allocate)
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

    def keep_prompts_in(self, layer: int, slots: Tensor, key: Tensor, value: Tensor) -> None:
        """Keeps (n, kv_heads, width, D) keys and values of prompts in (n,) slots."""
        self.prompts.keep_in(layer, slots, key, value)

    def keep_piece(self, layer: int, slot: int, first: int, key: Tensor, value: Tensor) -> None:
        """Keeps (kv_heads, width, D) keys and values of a prompt in a slot's columns from `first` on."""
        self.prompts.keep_at(layer, slot, first, key, value)

    def read_prompt(self, layer: int, slot: int, width: int) -> tuple[Tensor, Tensor]:
        """Returns the first `width` keys and values of a prompt, (kv_heads, width, D) each."""
        return self.prompts.read(layer, slot, width)

    def copy_of(self, prompt: int, n_prompt: int, row: int, n_row: int) -> list[tuple[Tensor, Tensor]]:
        """Returns keys and values of a prompt's first tokens and of a completion's, of all layers in one go.

        Per layer (kv_heads, n_prompt + n_row, D) each.
        """
        kept = self.prompts.read(slice(None), prompt, n_prompt)
        own = self.completions.read(slice(None), row, n_row)
        keys, values = (torch.cat(both, -2) for both in zip(kept, own, strict=True))
        return list(zip(keys, values, strict=True))

    def parts_of(self, slot: int, *, is_prompt: bool) -> list[Tensor]:
        """Returns the memory of a slot, in contiguous parts of any shape: (...) each."""
        panels = self.prompts if is_prompt else self.completions
        return [stored[layer, slot] for stored in panels for layer in range(len(stored))]

    def move_completions(self, sources: Tensor, targets: Tensor, width: int) -> None:
        """Moves completions of at most `width` tokens from slots, (n,), to other slots, (n,)."""
        self.completions.move(sources, targets, width)

    def move_prompts(self, sources: Tensor, targets: Tensor, width: int) -> None:
        """Moves prompts of at most `width` tokens from slots, (n,), to other slots, (n,)."""
        self.prompts.move(sources, targets, width)

    def arrays(self) -> tuple[KeyValueArrays, KeyValueArrays]:
        """Returns prompts and completions as the kernels take them."""
        return self.prompts.arrays(), self.completions.arrays()


def _panels(
    layers: Sequence[LayerShape],
    slots: int,
    columns: int,
    allocate: Callable[[tuple[int, ...]], Tensor],
) -> Panels:
    (like,) = set(layers)
    keys = allocate((len(layers), slots, like.heads, _blocks(columns), like.key_width, PANEL))
    values = allocate((len(layers), slots, like.heads, _blocks(like.value_width), columns, PANEL))
    return Panels(keys, values)


def _blocks(n: int) -> int:
    return -(-n // PANEL)
