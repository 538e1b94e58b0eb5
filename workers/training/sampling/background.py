"""Runs sampling beside an update, on a thread and, on a GPU, a stream of its own."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import torch

T = TypeVar("T")


class Background:
    """Runs work on one thread and, on a GPU, one stream.

    So sampling does not queue behind the update's kernels.
    """

    def __init__(self, device: torch.device) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sample-ahead")
        self._stream: torch.cuda.Stream | None = None
        if device.type == "cuda":
            self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]

    def start(self, work: Callable[[], T]) -> Future[T]:
        """Starts the work there, after what the caller has asked of the GPU so far."""
        if self._stream is not None:
            self._stream.wait_stream(torch.cuda.current_stream(self._stream.device))
        return self._thread.submit(self._do, work)

    def close(self) -> None:
        """Waits for the work under way."""
        self._thread.shutdown()

    def _do(self, work: Callable[[], T]) -> T:
        if self._stream is None:
            return work()
        with torch.cuda.stream(self._stream):
            found = work()
        self._stream.synchronize()  # the weights may change now
        return found
