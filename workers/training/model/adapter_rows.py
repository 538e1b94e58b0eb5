"""LoRA adapters of several tuned models beside their one base: each row of a batch goes through its own.

A linear layer of the base computes for all rows; then each adapter adds scale * B A x to its own. The base's
weights stay as they are.

n rows, T tokens in each.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Ints = NDArray[np.int64]


class LowRank(NamedTuple):
    """Is what an adapter adds to one layer: up @ down @ x."""

    down: Tensor  # (r, inputs)
    up: Tensor  # (outputs, r), times the scale


Adapter = Mapping[str, LowRank]
"""By the names of the base's layers."""


class AdapterRows:
    """Holds the adapters of one base by number, and applies them to what runs inside `use`."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self.by_number: dict[int, Adapter] = {}
        """The adapters; whoever wants to know whether they are others now compares `changes`."""
        self.changes = 0
        self._of_layer: dict[str, dict[int, LowRank]] = {}
        self._rows: list[tuple[int, Tensor]] | None = None
        self._n_rows = 0

    def put(self, number: int, adapter: Adapter) -> None:
        """Takes an adapter in; its number must be free."""
        self.by_number[number] = adapter
        self.changes += 1
        for name, low_rank in adapter.items():
            if name not in self._of_layer:
                self._of_layer[name] = {}
                layer: nn.Linear = self._model.get_submodule(name)
                layer.register_forward_hook(self._hook(self._of_layer[name]))
            self._of_layer[name][number] = low_rank

    def drop(self, number: int) -> None:
        """Forgets an adapter."""
        del self.by_number[number]
        self.changes += 1
        for known in self._of_layer.values():
            known.pop(number, None)

    @contextmanager
    def use(self, numbers: Ints | None) -> Iterator[None]:
        """Lets each of (n,) rows that the model is given go through the adapter of its number; -1 is none."""
        if numbers is None or not (numbers >= 0).any():
            yield
            return
        device = self._model.device
        self._n_rows = len(numbers)
        self._rows = [
            (int(number), torch.from_numpy((numbers == number).nonzero()[0]).to(device))
            for number in np.unique(numbers[numbers >= 0])
        ]
        try:
            yield
        finally:
            self._rows = None

    def _hook(self, known: Mapping[int, LowRank]) -> Any:
        def add(_module: Any, given: tuple[Tensor, ...], found: Tensor) -> Tensor | None:
            if self._rows is None:
                return None
            (x,) = given
            if len(x) != self._n_rows:
                raise RuntimeError(f"{len(x)} rows reach a layer, of {self._n_rows} that are run.")
            for number, rows in self._rows:
                if number in known:
                    down, up = known[number]
                    summed = found[rows] + (x[rows].float() @ down.T) @ up.T
                    found[rows] = summed.to(found.dtype)
            return found

        return add
