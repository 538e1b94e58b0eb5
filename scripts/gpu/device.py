"""The state of a device made of CPU memory: what is allocated, copied and captured."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from scripts.gpu.counts import Counts, asked_at

GIB = 1 << 30


class Recorded(NamedTuple):
    """Is one call of a capture, on the CPU's tensors."""

    call: Callable[..., Any]
    args: Any
    kwargs: Any
    found: Any
    runs: bool
    """Whether a replay must run it again: a view of memory does not change."""


class Capture:
    """Holds what a graph does."""

    def __init__(self) -> None:
        self.calls: list[Recorded] = []
        self.kernels: Counter[str] = Counter()


class Lease:
    """Keeps bytes of a storage counted as allocated until the last lease of it is gone."""

    def __init__(self, memory: Memory, key: int) -> None:
        self._memory = memory
        self._key = key

    def __del__(self) -> None:
        self._memory.release(self._key)


class Memory:
    """Counts the bytes of tensors on the device, each storage once, and refuses what does not fit.

    Attributes:
        total: of the card, bytes.
        others: taken by other processes, bytes.
        share: the part of the card that this process may take, up to 1.
        allocated, reserved, peak: as PyTorch's allocator names them, bytes; what is freed stays reserved.
        stranded: freed after it was allocated to the pool of a capture that has failed and was not ended;
            the driver does not get it back.
    """

    def __init__(self, total: int, free: int | None) -> None:
        self.total = total
        self.others = 0 if free is None else total - free
        self.share = 1.0
        self.allocated = self.reserved = self.peak = 0
        self.stranded = 0
        self._to_pool: set[int] = set()
        self._leases: Counter[int] = Counter()
        self._bytes: dict[int, int] = {}
        self._lock = threading.RLock()  # a tensor may be freed in the middle of anything

    @property
    def free(self) -> int:
        """Returns what the driver would say is free, in bytes."""
        return max(0, self.total - self.others - self.reserved)

    def lease(self, tensor: Tensor, *, is_to_pool: bool = False) -> Lease:
        """Counts the tensor's storage. `is_to_pool` says that a failed capture takes what is allocated.

        Raises:
            torch.OutOfMemoryError: the card or this process's share of it is too small.
        """
        storage = tensor.untyped_storage()
        key = storage._cdata
        with self._lock:
            if not self._leases[key]:
                self._allocate(key, storage.nbytes())
                if is_to_pool:
                    self._to_pool.add(key)
            self._leases[key] += 1
        return Lease(self, key)

    def release(self, key: int) -> None:
        """Gives back one lease of a storage."""
        with self._lock:
            self._leases[key] -= 1
            if not self._leases[key]:
                del self._leases[key]
                size = self._bytes.pop(key)
                self.allocated -= size
                if key in self._to_pool:
                    self._to_pool.remove(key)
                    self.stranded += size

    def give_back(self) -> None:
        """Gives the driver what is reserved and holds no tensor."""
        self.reserved = self.allocated + self.stranded

    def end_pool(self) -> None:
        """Lets what failed captures took be freed as all else."""
        self._to_pool.clear()
        self.stranded = 0

    def reset_peak(self) -> None:
        """Begins the peak at what is allocated now."""
        self.peak = self.allocated

    def _allocate(self, key: int, size: int) -> None:
        after = self.allocated + size
        if after > min(self.total - self.others, int(self.share * self.total)):
            raise torch.OutOfMemoryError(
                f"CUDA out of memory. Tried to allocate {size / GIB:.2f} GiB. GPU 0 has a total capacity of "
                f"{self.total / GIB:.2f} GiB of which {self.free / GIB:.2f} GiB is free (at {asked_at()})."
            )
        self._bytes[key] = size
        self.allocated = after
        self.reserved = max(self.reserved, after)
        self.peak = max(self.peak, after)


class Late(NamedTuple):
    """Is a copy to the host that nobody has waited for: until then its values are not there."""

    target: Tensor
    values: Tensor


class Device:
    """Is what `as_if_cuda` switches on: counts, memory, and what is under way."""

    def __init__(self, devices: int, total: int, free: int | None) -> None:
        self.devices = devices
        self.counts = Counts()
        self.memory = Memory(total, free)
        self.current = 0
        self._late: list[Late] = []
        self._started = 0
        self._arriving = threading.RLock()
        self._thread = threading.local()

    @property
    def capture(self) -> Capture | None:
        """Returns what this thread is capturing."""
        return getattr(self._thread, "capture", None)

    @capture.setter
    def capture(self, capture: Capture | None) -> None:
        self._thread.capture = capture

    @property
    def stream(self) -> Any:
        """Returns this thread's stream; None for the default one."""
        return getattr(self._thread, "stream", None)

    @stream.setter
    def stream(self, stream: Any) -> None:
        self._thread.stream = stream

    @property
    def gives_to_pool(self) -> bool:
        """Tells whether this thread allocates to the pool of a capture that has failed."""
        return getattr(self._thread, "gives_to_pool", False)

    @gives_to_pool.setter
    def gives_to_pool(self, value: bool) -> None:
        self._thread.gives_to_pool = value

    def open(self, name: str) -> None:
        """Notes that a call needs a CUDA context."""
        self.counts.contexts[name, asked_at()] += 1

    def launch(self, name: str) -> None:
        """Counts a kernel."""
        capture = self.capture
        (self.counts.kernels if capture is None else capture.kernels)[name] += 1

    def record(self, call: Callable[..., Any], args: Any, kwargs: Any, found: Any, *, runs: bool) -> None:
        """Adds a call to the graph that is being captured, if one is."""
        if self.capture is not None:
            self.capture.calls.append(Recorded(call, args, kwargs, found, runs))

    def wait(self, kind: str) -> None:
        """Counts a wait of the host; all copies to the host have arrived after it.

        Raises:
            RuntimeError: a graph is being captured on this thread, as CUDA says it.
        """
        self.refuse_in_capture(kind)
        self.counts.wait(kind)
        self.arrive(self._started)

    def refuse_in_capture(self, what: str) -> None:
        """Raises what CUDA raises for a call that a capture cannot hold."""
        if self.capture is not None:
            raise RuntimeError(
                f"CUDA error: operation not permitted when stream is capturing ({what} at {asked_at()})"
            )

    def copy_late(self, target: Tensor, values: Tensor) -> None:
        """Starts a copy to the host that the host does not wait for."""
        with self._arriving:
            self._late.append(Late(target, values))
            self._started += 1

    @property
    def started(self) -> int:
        """Returns how many copies to the host were started and not waited for at their start."""
        return self._started

    def arrive(self, started: int) -> None:
        """Writes the first `started` of the late copies where they belong, whichever thread began them."""
        with self._arriving:
            arrived = max(0, len(self._late) - (self._started - started))
            for late in self._late[:arrived]:
                with torch.inference_mode(late.target.is_inference()), torch.no_grad():
                    late.target.copy_(late.values)
            del self._late[:arrived]


device: Device | None = None
"""The device that is switched on; one at a time in a process."""


def current() -> Device:
    """Returns the device that is switched on.

    Raises:
        RuntimeError: none is, so a tensor of a past one is being used.
    """
    if device is None:
        raise RuntimeError("A tensor of a device that is switched off was used outside of as_if_cuda().")
    return device
