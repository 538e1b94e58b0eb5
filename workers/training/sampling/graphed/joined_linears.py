"""Linear layers with the same input as one product, without a second copy of their weights.

The layers' own weights become views of the joined one, so that both follow every update in place. What an
adapter adds beside a 16-bit layer (`FollowingLinear`) joins in: its first factor is further rows of the same
product, its second one product for all layers. Shapes: B rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from workers.training.model.rollout_weights import FollowingLinear

ALIGNED = 8
"""Columns of a product come in multiples of this, 16 bytes of 16 bits, which its fastest kernels ask for. It
follows from that."""


class JoinedLinears:
    """Is one or several linear layers with the same input."""

    def __init__(self, *linears: Any) -> None:
        """Moves the layers' weights, biases and adapters beside each other; one layer after the other."""
        self._linears = linears
        self.outputs = sum(linear.out_features for linear in linears)
        rank = -(-sum(_rank(linear) for linear in linears) // ALIGNED) * ALIGNED
        weight = linears[0].weight
        with torch.inference_mode(False), torch.no_grad():  # the weights may be trained outside of it
            self._weight = _zeros(weight, self.outputs + rank, linears[0].in_features)
            self._bias = None if linears[0].bias is None else _zeros(weight, self.outputs + rank)
            self._up = _zeros(weight, self.outputs, rank) if rank else None
            self._views = list(self._move_in())

    def _move_in(self) -> Iterator[tuple[nn.Linear, str, int]]:
        """Lets every layer's tensors be views of the joined ones; yields layers, names and addresses."""
        row, low = 0, 0
        for linear in self._linears:
            rows = slice(row, row + linear.out_features)
            row = rows.stop
            yield linear, "weight", _move(linear.weight, self._weight[rows])
            if self._bias is not None:
                yield linear, "bias", _move(linear.bias, self._bias[rows])
            if isinstance(linear, FollowingLinear) and linear.rank and self._up is not None:
                rank = linear.rank
                first = self.outputs + low
                linear.down = _moved(linear.down, self._weight[first : first + rank])
                linear.up = _moved(linear.up, self._up[rows, low : low + rank])
                yield linear, "down", linear.down.data_ptr()
                yield linear, "up", linear.up.data_ptr()
                low += rank

    @property
    def is_current(self) -> bool:
        """Says whether the layers' tensors still lie here, and nothing has been added to them."""
        ranks = sum(_rank(linear) for linear in self._linears)
        room = 0 if self._up is None else self._up.shape[1]
        return (
            all(getattr(linear, name).data_ptr() == address for linear, name, address in self._views)
            and -(-ranks // ALIGNED) * ALIGNED == room
        )

    def __call__(self, states: Tensor) -> Tensor:
        """Computes (B, inputs) -> (B, outputs), a view whose rows may lie further apart."""
        found = nn.functional.linear(states, self._weight, self._bias)
        if self._up is None:
            return found
        outputs, low = found[:, : self.outputs], found[:, self.outputs :]
        return outputs.addmm_(low, self._up.T)


def _rank(linear: nn.Linear) -> int:
    return linear.rank if isinstance(linear, FollowingLinear) else 0


def _zeros(like: Tensor, *shape: int) -> Tensor:
    return torch.zeros(shape, dtype=like.dtype, device=like.device)


def _move(parameter: Any, place: Tensor) -> int:
    """Gives a parameter another place in memory; returns its address."""
    parameter.data = _moved(parameter.data, place)
    return place.data_ptr()


def _moved(given: Any, place: Tensor) -> Tensor:
    place.copy_(given)
    return place
