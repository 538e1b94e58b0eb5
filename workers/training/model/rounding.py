"""Rounding to the dtypes that the delivered weights have, so that what is measured is what is delivered.

A small LoRA update is smaller than the steps between 16-bit numbers: in a trial 53 to 94 % of the weights
came out as the base's. So a policy that is measured holds the rounded weights for as long.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from workers.training.model.quantised import QuantisedLinear, dtype_for_measuring
from workers.training.model.rollout_weights import FollowingLinear
from workers.training.model.stored_types import StoredTypes


class Rounded:
    """Rounds weights of a sampling model in place, and remembers what is needed to put them back.

    Attributes:
        is_rounded: whether there was a weight that storing rounds.
    """

    def __init__(self, model: Any, types: StoredTypes) -> None:
        self._names = {id(weight): name for name, weight in model.named_parameters()}
        self._types = types
        self._exact: list[tuple[Any, Tensor]] = []
        self._held_in = dtype_for_measuring(model, model.dtype)
        self._lost = self._moved = 0.0
        self.is_rounded = False

    @property
    def error(self) -> float | None:
        """Returns the size of what rounding loses, relative to that of the change to the base.

        Sizes are Euclidean norms over all trained weights. None where nothing is rounded, nothing has changed
        yet, or the base is not whole in this process.
        """
        return math.sqrt(self._lost / self._moved) if self.is_rounded and self._moved > 0 else None

    def round_sum(self, layer: Any, base: Tensor, delta: Tensor, parameter: str = "weight") -> None:
        """Rounds the sum (O, I), or one for each expert, that stands for what a LoRA layer adapts.

        The next `follow` of it puts it back.
        """
        weight = getattr(layer, parameter)
        stored = self._types.of(self._names[id(weight)])
        if not _loses(torch.float32, stored) and not isinstance(layer, FollowingLinear):
            return
        exact = base.float() + delta.float()
        if isinstance(layer, FollowingLinear) and layer.branch is not None:
            exact = layer.weight.float() + layer.branch.delta()  # as its state dict has it, bit for bit
            layer.drop_branch()
        weight.copy_(exact.to(stored))
        self._note(exact, weight, base)

    def merge(self, layer: QuantisedLinear) -> None:
        """Lets a quantised layer compute with the merged weight as it is stored; the next `follow` ends that.

        Where that is fp32 it would compute the same as it does, but for the order of sums.
        """
        if not _loses(torch.float32, layer.stored):
            return
        exact = layer.summed()  # the only matrix in fp32: a card that holds 4 bits has no place for others
        self._lost += float(torch.linalg.vector_norm(exact.sub_(exact.to(layer.stored)))) ** 2
        self._moved += 0.0 if layer.branch is None else layer.branch.size() ** 2
        self.is_rounded = True
        del exact
        layer.merge(self._held_in)

    def round_weight(self, name: str, weight: Any, base: Tensor | None) -> None:
        """Rounds a weight, (O, I) or (H,), that is trained itself, or a copy of it."""
        stored = self._types.of(name)
        if not _loses(weight.dtype, stored):
            return
        exact = weight.detach().clone()
        self._exact.append((weight, exact))
        weight.copy_(exact.to(stored))
        self._note(exact, weight.detach(), base)

    def put_back(self) -> None:
        """Gives the weights that are trained themselves what they were."""
        for weight, exact in self._exact:
            weight.copy_(exact)

    def _note(self, exact: Tensor, rounded: Tensor, base: Tensor | None) -> None:
        self.is_rounded = True
        if base is not None:
            self._moved += float((exact.float() - base.float()).square().sum())
            self._lost += float((rounded.float() - exact.float()).square().sum())


def _loses(held: torch.dtype, stored: torch.dtype) -> bool:
    """Says whether storing may lose something of what is held."""
    return torch.promote_types(held, stored) != stored
