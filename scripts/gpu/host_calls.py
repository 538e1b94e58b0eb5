"""What Python code asks of tensors on the device: where they are, and to have them moved."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from scripts.gpu import device as devices
from scripts.gpu.counts import asked_at
from scripts.gpu.tensors import CUDA, GpuTensor, is_cuda, wrapped_from

MOVES = (Tensor.to, Tensor.cpu, Tensor.cuda)
SAID: dict[Any, Any] = {
    Tensor.device.__get__: CUDA,
    Tensor.is_cuda.__get__: True,  # type: ignore[attr-defined]
    Tensor.is_cpu.__get__: False,  # type: ignore[attr-defined]
}


class HostCallMode(TorchFunctionMode):
    """Sends what Python calls on the device's tensors, or with its name, to `host_call`."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is torch.autograd.backward:
            return func(*args, **kwargs)
        first = args[0] if args else None
        if isinstance(first, list) and first:
            first = first[0]
        if func in MOVES or isinstance(first, GpuTensor) or is_cuda(kwargs.get("device")):
            return host_call(func, args, kwargs)
        if func is Tensor.pin_memory:
            return args[0].clone()
        kwargs.pop("pin_memory", None)
        return func(*args, **kwargs)


def host_call(func: Any, args: Any, kwargs: Any) -> Any:
    """Answers a call of Python: where a tensor is, moves, factories, and all else by its operations."""
    first = args[0] if args else None
    name = getattr(func, "__name__", "")
    if isinstance(first, GpuTensor):
        if func in SAID:
            return SAID[func]
        special = ON_TENSORS.get(func if func in ON_TENSORS else name)
        if special is not None:
            return special(func, args, kwargs)
    if func in MOVES:
        return _moved(func, args, kwargs)
    if name == "pad_sequence":  # it takes the device of the outer tensor
        return GpuTensor(func([x.held for x in args[0]], *args[1:], **kwargs))
    if is_cuda(kwargs.get("device")):
        return _made(func, args, kwargs, name)
    with torch._C.DisableTorchFunctionSubclass():
        return func(*args, **kwargs)


def _made(func: Any, args: Any, kwargs: Any, name: str) -> Any:
    """Runs a factory of the device: `torch.zeros(..., device="cuda")` and its like."""
    device = devices.current()
    device.open(name)
    kwargs = {k: v for k, v in kwargs.items() if k != "pin_memory"}
    if func is torch.tensor:
        device.refuse_in_capture("torch.tensor")
    place = None if args and isinstance(args[0], GpuTensor) else "cpu"
    made = wrapped_from(func, args, {**kwargs, "device": place}, name)
    if func is torch.tensor:
        device.counts.copy("host->device", made.held.nbytes, waits=True)
    return made


def _moved(func: Any, args: Any, kwargs: Any) -> Tensor:
    """Runs `to`, `cpu` or `cuda`."""
    tensor: Tensor = args[0]
    target, dtype, non_blocking = _asked(func, args[1:], kwargs)
    is_here = isinstance(tensor, GpuTensor)
    is_there = is_here if target is None else is_cuda(target)
    if is_here == is_there:
        copy = bool(kwargs.get("copy"))
        if dtype is None and not copy:
            return tensor
        with torch._C.DisableTorchFunctionSubclass():
            return tensor.to(tensor.dtype if dtype is None else dtype, copy=copy)
    device = devices.current()
    if is_there:
        device.open("a tensor's move")
        device.refuse_in_capture("copy to the device")
        device.counts.copy("host->device", tensor.nbytes, waits=not non_blocking)
        made: Tensor = GpuTensor(tensor.detach().to(dtype or tensor.dtype, copy=True))
        return made.requires_grad_() if tensor.requires_grad and torch.is_grad_enabled() else made
    assert isinstance(tensor, GpuTensor)
    device.refuse_in_capture("copy to the host")
    device.counts.copy("device->host", tensor.held.nbytes, waits=not non_blocking)
    values = tensor.held.detach().to(dtype or tensor.dtype, copy=True)
    if not non_blocking:
        device.arrive(device.started)
        return values
    target_on_host = _not_there_yet(values)
    device.copy_late(target_on_host, values)
    return target_on_host


def _asked(func: Any, rest: Any, kwargs: Any) -> tuple[torch.device | None, torch.dtype | None, bool]:
    """Returns the device, the type and whether the host does not wait, as a move asks for them."""
    if func is Tensor.cpu:
        return torch.device("cpu"), None, False
    if func is Tensor.cuda:
        given = rest[0] if rest else kwargs.get("device")
        is_cuda(given)
        return CUDA, None, bool(kwargs.get("non_blocking", False))
    if rest and isinstance(rest[0], Tensor):
        return rest[0].device, rest[0].dtype, False
    given = {k: v for k, v in kwargs.items() if k != "copy"}
    device, dtype, non_blocking, _ = torch._C._nn._parse_to(*rest, **given)
    return device, dtype, non_blocking


def _not_there_yet(values: Tensor) -> Tensor:
    """Returns memory like that of `values`, filled with what nobody could take for them."""
    if values.dtype.is_floating_point:
        return torch.full_like(values, float("nan"))
    if values.dtype == torch.bool:
        return ~values
    return torch.full_like(values, torch.iinfo(values.dtype).min)


def _set_data(func: Any, args: Any, _: Any) -> None:
    with torch._C.DisableTorchFunctionSubclass():
        func(*args)
    args[0].hold(args[1].held)


def _refuse_numpy(*_: Any) -> None:
    raise TypeError(
        "can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host "
        f"memory first. (at {asked_at()})"
    )


def _to_list(_: Any, args: Any, __: Any) -> Any:
    devices.current().wait("host read")
    return args[0].held.detach().tolist()


def _backward(_: Any, args: Any, kwargs: Any) -> None:
    """Runs backward outside of the mode of calls: layers that are run again look at devices again."""
    torch.autograd.backward((args[0],), kwargs.get("gradient"))


ON_TENSORS: dict[Any, Callable[[Any, Any, Any], Any]] = {
    Tensor.data.__set__: _set_data,  # type: ignore[attr-defined]
    Tensor.backward: _backward,
    "numpy": _refuse_numpy,
    "__array__": _refuse_numpy,
    "tolist": _to_list,
    "data_ptr": lambda func, args, _: func(args[0].held),
    "untyped_storage": lambda func, args, _: func(args[0].held),
    "storage": lambda func, args, _: func(args[0].held),
    "get_device": lambda *_: 0,
    "record_stream": lambda *_: None,
    "is_pinned": lambda *_: False,
    "pin_memory": lambda *_: _refuse_pin(),
}


def _refuse_pin() -> None:
    raise RuntimeError("cannot pin 'torch.cuda.FloatTensor' only dense CPU tensors can be pinned")
