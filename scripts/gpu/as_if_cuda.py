"""A CUDA device made of CPU memory: tensors say that they are on cuda:0, values are computed on the CPU.

What a real device refuses raises: operands on two devices, `numpy()` of a device's tensor, a host read while
a graph is captured, more memory than there is. A copy that the host does not wait for leaves its target
without the values until something waits. What a real device is slow at is counted (`Counts`): kernels that
are launched one by one, captures, replays, copies and waits, with the line that asked for each. An operation
of the namespace `cherry` runs its CPU implementation and counts as one kernel.

    with as_if_cuda(total=80 * GIB) as device:
        train(config_with_device_cuda, ...)
        print(device.counts.report())

It does not show that kernels compile, what they round, or how long anything takes. Threads that are started
inside are covered; processes are not. Tensors made inside must not be used outside.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import torch

from scripts.gpu import device as devices
from scripts.gpu.device import GIB, Device
from scripts.gpu.graphs import CudaGraph, Event, Stream, capturing, end_of_pool
from scripts.gpu.host_calls import HostCallMode
from scripts.gpu.tensors import CUDA, OperationMode, is_cuda

H200_BYTES = 139 * GIB


@contextmanager
def as_if_cuda(
    *, devices_here: int = 1, total: int = H200_BYTES, free: int | None = None
) -> Iterator[Device]:
    """Switches the device on in this process, and yields it: what it counts, and its memory.

    Args:
        devices_here: what `device_count` says; tensors can be on cuda:0 only.
        total: the card's memory, bytes.
        free: what other processes leave of it, bytes; None for all.

    Raises:
        RuntimeError: one is switched on already.
    """
    if devices.device is not None:
        raise RuntimeError("as_if_cuda() is switched on already in this process.")
    device = Device(devices_here, total, free)
    with ExitStack() as stack:
        stack.callback(setattr, devices, "device", None)
        devices.device = device
        for name, value in _answers(device).items():
            stack.enter_context(patch.object(torch.cuda, name, value))
        _patch_torch(stack)
        stack.enter_context(_modes())
        yield device


@contextmanager
def _modes() -> Iterator[None]:
    with OperationMode(), HostCallMode():  # type: ignore[no-untyped-call]
        yield


def _patch_torch(stack: ExitStack) -> None:
    """Changes what torch does by the outer device or by thread."""
    stack.enter_context(patch.object(torch._C, "_cuda_endAllocateToPool", end_of_pool))
    torch._C._set_only_lift_cpu_tensors(True)
    stack.callback(torch._C._set_only_lift_cpu_tensors, False)
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    stack.callback(torch.__future__.set_overwrite_module_params_on_conversion, False)
    begin = torch.autocast.__init__
    stack.enter_context(patch.object(torch.autocast, "__init__", _autocast_on_cpu(begin)))
    stack.enter_context(patch.object(torch.Tensor, "backward", _backward))
    stack.enter_context(patch.object(threading.Thread, "run", _in_modes(threading.Thread.run)))


def _autocast_on_cpu(begin: Callable[..., None]) -> Callable[..., None]:
    def init(self: Any, device_type: str, *args: Any, **kwargs: Any) -> None:
        begin(self, "cpu" if device_type == "cuda" else device_type, *args, **kwargs)

    return init


def _backward(self: torch.Tensor, gradient: torch.Tensor | None = None, **_: Any) -> None:
    torch.autograd.backward((self,), gradient)


def _in_modes(run: Callable[[threading.Thread], None]) -> Callable[[threading.Thread], None]:
    def body(self: threading.Thread) -> None:
        with _modes():
            run(self)

    return body


def _answers(device: Device) -> dict[str, Any]:
    """Returns what `torch.cuda` is to say and do, by name."""
    memory = device.memory
    without_context: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: device.devices,
        "is_initialized": lambda: bool(device.counts.contexts),
        "_is_in_bad_fork": lambda: False,
        "_lazy_init": lambda: None,
        "is_current_stream_capturing": lambda: device.capture is not None,
        "is_bf16_supported": lambda *_, **__: True,
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": CudaGraph,
        "graph": capturing,
        "graph_pool_handle": lambda: (0, 1),
        "set_stream": lambda stream: setattr(device, "stream", stream),
        "stream": lambda stream: nullcontext(stream),
        "device": lambda index: nullcontext(is_cuda(index)),
        "manual_seed": lambda _: None,
        "manual_seed_all": lambda _: None,
        "empty_cache": memory.give_back,
    }
    properties = SimpleNamespace(
        name="as if CUDA",
        major=9,
        minor=0,
        total_memory=memory.total,
        multi_processor_count=132,
        gcnArchName="",
    )
    with_context: dict[str, Callable[..., Any]] = {
        "synchronize": lambda *_: device.wait("synchronize"),
        "current_stream": Stream.now,
        "default_stream": Stream.default,
        "current_device": lambda: device.current,
        "set_device": lambda index: _set_device(device, index),
        "get_device_properties": lambda *_: properties,
        "get_device_capability": lambda *_: (9, 0),
        "get_device_name": lambda *_: properties.name,
        "get_rng_state": lambda *_: torch.zeros(16, dtype=torch.uint8),
        "get_rng_state_all": lambda: [torch.zeros(16, dtype=torch.uint8) for _ in range(device.devices)],
        "set_rng_state": lambda *_: None,
        "set_rng_state_all": lambda _: None,
        "mem_get_info": lambda *_: (memory.free, memory.total),
        "memory_allocated": lambda *_: memory.allocated,
        "memory_reserved": lambda *_: memory.reserved,
        "max_memory_allocated": lambda *_: memory.peak,
        "max_memory_reserved": lambda *_: memory.reserved,
        "reset_peak_memory_stats": lambda *_: memory.reset_peak(),
        "set_per_process_memory_fraction": lambda share, *_: setattr(memory, "share", share),
    }
    return without_context | {name: _opening(device, name, call) for name, call in with_context.items()}


def _opening(device: Device, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
    def opened(*args: Any, **kwargs: Any) -> Any:
        device.open(name)
        return call(*args, **kwargs)

    return opened


def _set_device(device: Device, index: Any) -> None:
    number = index if isinstance(index, int) else (torch.device(index).index or 0)
    if number >= device.devices:
        raise RuntimeError(f"CUDA error: invalid device ordinal ({number} of {device.devices})")
    device.current = number


__all__ = ["CUDA", "GIB", "H200_BYTES", "as_if_cuda"]
