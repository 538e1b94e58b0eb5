"""A model on a device that holds passes of so many tokens: what PyTorch's allocator raises, and where."""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor

from workers.training.passes.path import why_general

Place = Literal["without gradient", "forward", "backward"]


class SmallMemory:
    """Hooks a model's first layer, so that passes with more tokens than `holds` run out of memory."""

    def __init__(self, model: Any, holds: int, place: Place = "forward") -> None:
        self.failures = 0
        self.largest = 0
        """Tokens of the largest pass that went through."""
        self._holds = holds
        self._place = place
        why_general(model)  # its small trials are no passes of a run
        layer = next(module for module in model.modules() if type(module).__name__.endswith("DecoderLayer"))
        self._hook = layer.register_forward_hook(self._run)

    def remove(self) -> None:
        self._hook.remove()

    def _run(self, _module: Any, given: Any, found: Any) -> None:
        states = found if isinstance(found, Tensor) else found[0]
        tokens = states.shape[:-1].numel()
        is_learning = torch.is_grad_enabled()
        if tokens <= self._holds or is_learning == (self._place == "without gradient"):
            self.largest = max(self.largest, tokens)
        elif self._place == "backward":
            states.register_hook(self._fail)
        else:
            self._fail()

    def _fail(self, _: Any = None) -> None:
        self.failures += 1
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB.")
