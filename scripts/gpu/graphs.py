"""Streams, events and graphs of the device that is made of CPU memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten

from scripts.gpu import device as devices
from scripts.gpu.device import Capture, Lease, Recorded
from scripts.gpu.tensors import CUDA


class Stream:
    """Runs everything in the order in which it is asked for, so waiting for another stream does nothing."""

    cuda_stream = device_index = 0
    _numbers = count(1)

    def __init__(self, *_: Any, **__: Any) -> None:
        devices.current().open("Stream")
        self.device = CUDA
        self.number = next(self._numbers)

    @classmethod
    def default(cls, *_: Any) -> Stream:
        """Returns the stream that all threads begin on."""
        made = cls()
        made.number = 0
        return made

    @classmethod
    def now(cls, *_: Any) -> Stream:
        """Returns the stream of this thread."""
        found: Stream | None = devices.current().stream
        return cls.default() if found is None else found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and self.number == other.number

    def __hash__(self) -> int:
        return self.number

    def synchronize(self) -> None:
        """Makes the host wait."""
        devices.current().wait("synchronize a stream")

    def query(self) -> bool:
        """Tells that all is done."""
        return True

    def wait_stream(self, _: Stream) -> None:
        """Lets this stream wait for another."""

    def wait_event(self, _: Event) -> None:
        """Lets this stream wait for an event."""

    def record_event(self, event: Event | None = None) -> Event:
        """Returns an event of what was asked for until now."""
        event = event or Event()
        event.record()
        return event

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        return None


class Event:
    """Remembers which copies to the host had been started when it was recorded."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._started = 0

    def record(self, _: Stream | None = None) -> None:
        """Marks what was asked for until now."""
        self._started = devices.current().started

    def synchronize(self) -> None:
        """Makes the host wait until the copies before the event have arrived."""
        device = devices.current()
        device.refuse_in_capture("synchronize an event")
        device.counts.wait("synchronize an event")
        device.arrive(self._started)

    def wait(self, _: Stream | None = None) -> None:
        """Lets the current stream wait for the event."""

    def query(self) -> bool:
        """Tells that it is done; the copies before it have arrived."""
        devices.current().arrive(self._started)
        return True


class CudaGraph:
    """Holds the operations of a capture and runs them again, into the same memory."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self._capture = Capture()
        self._leases: list[Lease] = []

    def pool(self) -> tuple[int, int]:
        """Returns the name of the graph's memory."""
        return (0, 1)

    def hold(self, capture: Capture) -> None:
        """Takes what was captured, with its memory."""
        self._capture = capture
        memory = devices.current().memory
        found = [x for call in capture.calls for x in tree_flatten(call.found)[0] if isinstance(x, Tensor)]
        self._leases = [memory.lease(x) for x in found]

    def reset(self) -> None:
        """Gives the graph's memory back."""
        self._capture = Capture()
        self._leases = []

    def replay(self) -> None:
        """Runs the operations again; the graph is launched as one."""
        counts = devices.current().counts
        counts.replays += 1
        counts.replayed.update(self._capture.kernels)
        with torch.no_grad():
            for call in self._capture.calls:
                if call.runs:
                    _again(call)


def _again(call: Recorded) -> None:
    found = call.call(*call.args, **call.kwargs)
    olds, news = tree_flatten(call.found)[0], tree_flatten(found)[0]
    for old, new in zip(olds, news, strict=True):
        if isinstance(old, Tensor) and old is not new:
            old.copy_(new)


@contextmanager
def capturing(graph: CudaGraph, *_: Any, **__: Any) -> Iterator[None]:
    """Captures what runs inside, as `torch.cuda.graph`; pool, stream and error mode change nothing here.

    What raises inside leaves the graph empty, the thread on the capture's stream, and its memory going to the
    capture's pool: `torch.cuda.graph` ends the capture first, which raises, and puts nothing back then.
    """
    device = devices.current()
    if device.capture is not None:
        raise RuntimeError("CUDA error: a capture was begun while another is under way on this thread")
    device.wait("begin a capture")  # torch.cuda.graph synchronises first
    before, device.stream = device.stream, Stream()
    capture = device.capture = Capture()
    try:
        yield
    except BaseException:
        device.counts.failed_captures += 1
        device.gives_to_pool = True
        raise
    finally:
        device.capture = None
    device.stream = before
    graph.hold(capture)
    device.counts.captured.append(capture.kernels)


def end_of_pool(*_: Any) -> None:
    """Lets this thread's memory come from where it came before a capture.

    Raises:
        RuntimeError: no capture has left it to a pool.
    """
    device = devices.current()
    if not device.gives_to_pool:
        raise RuntimeError("endAllocatePool: not currently recording to mempool_id")
    device.gives_to_pool = False
    device.memory.end_pool()
