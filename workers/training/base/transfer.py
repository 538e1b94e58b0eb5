"""Copies between host and GPU that the host does not wait for."""

from __future__ import annotations

from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor


def to_device(values: NDArray[Any], device: torch.device) -> Tensor:
    """Copies an array to a device, after what was asked of it before. The array may change at once."""
    found = torch.from_numpy(values)
    if device.type == "cpu":
        return found.clone()
    # The allocator of pinned memory does not give it to anybody else before the copy is done.
    return found.pin_memory().to(device, non_blocking=True)


def overwrite(target: Tensor, values: NDArray[Any]) -> None:
    """Copies an array over a tensor, (..., N) both, after what was asked of the device before."""
    source = torch.from_numpy(values)
    if target.device.type != "cpu":
        source = source.pin_memory()
    target.copy_(source, non_blocking=True)


class Reading:
    """Is a device's tensor on its way to the host, as it is after what was asked of the device before."""

    def __init__(self, source: Tensor) -> None:
        self._event: torch.cuda.Event | None = None
        if source.device.type == "cpu":
            self._found = source.clone()
            return
        self._found = torch.empty(source.shape, dtype=source.dtype, pin_memory=True)
        self._found.copy_(source, non_blocking=True)
        self._event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._event.record()

    def wait(self) -> Tensor:
        """Returns it once it has arrived."""
        if self._event is not None:
            self._event.synchronize()
            self._event = None
        return self._found
