"""CUDA graphs, and what happens where one cannot be captured."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Protocol

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Run = Callable[[], Tensor]
"""A step over static tensors; it returns one of them, or one that the next call overwrites."""


class Graph(Protocol):
    """Is a captured step. `pool` is the memory that the next capture may share."""

    pool: Any

    def __call__(self) -> Tensor:
        """Replays the step; returns its tensor, in the same memory every time."""


Capture = Callable[[Run, Any], Graph]
"""(a step that was run before, the pool of the graph before or None) -> that step as a graph."""


class CudaGraph:
    """Is a step, captured once. Its tensors stay where they are."""

    def __init__(self, run: Run, pool: Any) -> None:
        """Captures the step.

        Raises:
            RuntimeError: it asks for what a graph cannot hold, such as a value on the host. Stream and
                allocator are as before.
        """
        self._graph = torch.cuda.CUDAGraph()
        stream = torch.cuda.current_stream()
        stream.synchronize()
        self.pool = torch.cuda.graph_pool_handle() if pool is None else pool
        try:
            # The update may allocate on its own thread meanwhile.
            with torch.cuda.graph(self._graph, pool=self.pool, capture_error_mode="thread_local"):
                self._out = run()
        except RuntimeError:
            _abandon(self._graph, self.pool, stream)
            raise

    def __call__(self) -> Tensor:
        """Replays the step; returns its tensor, in the same memory every time."""
        self._graph.replay()
        return self._out


def _abandon(graph: torch.cuda.CUDAGraph, pool: Any, stream: torch.cuda.Stream) -> None:
    """Puts back what a capture that has failed leaves behind."""
    # The end of such a capture raises itself, before `torch.cuda.graph` gives back the stream it came from
    # and, by the version of PyTorch, before the allocator stops giving this thread memory of the pool.
    torch.cuda.set_stream(stream)
    with suppress(RuntimeError):  # "not currently recording": it has stopped
        torch._C._cuda_endAllocateToPool(stream.device_index, pool)
    graph.reset()
    torch.cuda.synchronize()


class Graphs:
    """Makes graphs of steps that were run once, all over one pool of memory, until one cannot be captured."""

    def __init__(self, capture: Capture | None) -> None:
        """`capture` is None where every step is run kernel by kernel."""
        self._capture = capture
        self._pool: Any = None

    @property
    def is_on(self) -> bool:
        """Says whether steps are to be captured."""
        return self._capture is not None

    def of(self, run: Run) -> Run:
        """Returns the step as a graph, or as it is from the first one on that cannot be captured."""
        if self._capture is None:
            return run
        try:
            graph = self._capture(run, self._pool)
        except RuntimeError as error:
            # Some models look at values on the host as they go.
            reason = str(error)[:200]
            log.warning("decode_not_captured", extra={"reason": reason, "instead": "kernel by kernel"})
            self._capture = self._pool = None
            return run
        self._pool = graph.pool
        return graph
