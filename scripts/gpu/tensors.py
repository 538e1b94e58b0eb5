"""Tensors that say they are on cuda:0 and hold a CPU's: what operations on them run, count and refuse."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map, tree_unflatten

from scripts.gpu import device as devices
from scripts.gpu.counts import asked_at

aten = torch.ops.aten
CUDA = torch.device("cuda", 0)
OUTER = torch.device("cpu")
"""What C++ is told: autograd asks the device of a tensor, and there is no CUDA."""

SIZED_BY_VALUES = {
    aten.nonzero,
    aten.masked_select,
    aten._unique2,
    aten.unique_dim,
    aten.unique_consecutive,
    aten.unique_dim_consecutive,
    aten.bincount,
    aten.equal,
    aten.is_nonzero,
    aten.repeat_interleave,
}
"""Operations whose result's size depends on values, so that the host waits for them."""
INDEXING = {aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_}
FACTORIES = {
    aten.zeros,
    aten.empty,
    aten.full,
    aten.ones,
    aten.empty_strided,
    aten.scalar_tensor,
    aten.arange,
}
WITHOUT_KERNEL = {
    *(
        aten._unsafe_view,
        aten.lift_fresh,
        aten.detach,
        aten.alias,
        aten._reshape_alias,
        aten.set_,
        aten.resize_,
    ),
    *(aten.empty, aten.empty_like, aten.empty_strided, aten.new_empty, aten.new_empty_strided),
    *(aten._local_scalar_dense, aten.is_nonzero),
}
"""Operations that launch nothing, beside those whose result is a view."""


class GpuTensor(Tensor):
    """Says that it is on cuda:0. Its values are those of `held`, a tensor of the CPU."""

    held: Tensor
    lease: devices.Lease

    @staticmethod
    def __new__(cls, held: Tensor) -> GpuTensor:
        """Puts a CPU tensor's memory on the device; it must not be used from the host afterwards."""
        # In inference mode too, a view of a tensor from outside of it is none that autograd cannot follow.
        with nullcontext() if held.is_inference() else torch.inference_mode(False):
            made: GpuTensor = Tensor._make_wrapper_subclass(
                cls,
                held.size(),
                strides=held.stride(),
                storage_offset=held.storage_offset(),
                dtype=held.dtype,
                layout=held.layout,
                device=OUTER,
            )
        made.hold(held)
        return made

    def hold(self, held: Tensor) -> None:
        """Takes other memory, as assignment to `data` does."""
        device = devices.current()
        self.lease = device.memory.lease(held, is_to_pool=device.gives_to_pool)
        self.held = held

    device = property(lambda _: CUDA)
    is_cuda = property(lambda _: True)
    is_cpu = property(lambda _: False)

    def __deepcopy__(self, memo: dict[int, Any]) -> GpuTensor:
        if id(self) not in memo:
            devices.current().launch("clone")
            made = GpuTensor(self.held.clone())
            made.requires_grad_(self.requires_grad)
            if hasattr(self, "_is_param"):
                made._is_param = self._is_param
            memo[id(self)] = made
        found: GpuTensor = memo[id(self)]
        return found

    def __repr__(self, **_: Any) -> str:  # type: ignore[override]
        return f"GpuTensor({self.held!r})"

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        from scripts.gpu.host_calls import host_call  # it needs this class

        return host_call(func, args, kwargs or {})

    @classmethod
    def __torch_dispatch__(  # type: ignore[override]
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        return run(func, args, kwargs or {})


def is_cuda(device: Any) -> bool:
    """Tells whether an argument names a CUDA device.

    Raises:
        RuntimeError: it names one that this machine does not have, or not the one that tensors can be on.
    """
    if device is None or isinstance(device, int):
        return device is not None
    found = torch.device(device)
    if found.type == "cuda" and (found.index or 0) != 0:
        raise RuntimeError(f"CUDA error: invalid device ordinal ({found} at {asked_at()})")
    return found.type == "cuda"


class OperationMode(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sends operations that name the device, or have a tensor on it, to `run`."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        flat, _ = tree_flatten((args, kwargs))
        if any(isinstance(x, GpuTensor) or (isinstance(x, torch.device) and x.type == "cuda") for x in flat):
            return run(func, args, kwargs)
        found = func(*args, **kwargs)
        if func.overloadpacket in FACTORIES and _in_backward():
            return GpuTensor(found)  # autograd takes the device from the outer tensor, which is not told
        return found


def run(func: Any, args: Any, kwargs: Any) -> Any:
    """Runs an operation on the CPU's tensors and returns what it gives as tensors of the device.

    Raises:
        RuntimeError: it has tensors of two devices, or cannot be captured while a graph is.
        torch.OutOfMemoryError: the result does not fit.
    """
    flat, spec = tree_flatten((args, kwargs))
    on_gpu = [x for x in flat if isinstance(x, GpuTensor)]
    on_host = [x for x in flat if isinstance(x, Tensor) and not isinstance(x, GpuTensor)]
    if func.overloadpacket is aten.copy_ and on_gpu and on_host:
        return _copied(args, kwargs)
    to_gpu = bool(on_gpu) or is_cuda(kwargs.get("device"))
    _refuse_mixed(func, args, on_gpu, on_host)
    _count_waits(func, args, kwargs, on_gpu)
    real_args, real_kwargs = tree_unflatten([_on_host(x) for x in flat], spec)
    if to_gpu:
        real_kwargs.pop("pin_memory", None)
    call = ON_CUDA_ALONE.get(func, func)
    found = call(*real_args, **real_kwargs)
    if not to_gpu:
        return found
    has_kernel = func.overloadpacket not in WITHOUT_KERNEL and not _is_same_memory(func, found, on_gpu)
    if has_kernel:
        devices.current().launch(name_of(func))
    devices.current().record(call, real_args, real_kwargs, found, runs=has_kernel)
    return _wrapped(found, on_gpu, on_host)


def _wide_mm(left: Tensor, right: Tensor, dtype: torch.dtype, **kwargs: Any) -> Tensor:
    return torch.mm(left.to(dtype), right.to(dtype), **kwargs)


def _wide_addmm(added: Tensor, left: Tensor, right: Tensor, dtype: torch.dtype, **kwargs: Any) -> Tensor:
    return torch.addmm(added.to(dtype), left.to(dtype), right.to(dtype), **kwargs)


ON_CUDA_ALONE: dict[Any, Callable[..., Tensor]] = {
    aten.mm.dtype: _wide_mm,
    aten.mm.dtype_out: _wide_mm,
    aten.addmm.dtype: _wide_addmm,
    aten.addmm.dtype_out: _wide_addmm,
}
"""Products of 16 bits with sums of 32, which a CPU has no kernels for (TRL's losses use them)."""


def _is_same_memory(func: Any, found: Any, on_gpu: list[GpuTensor]) -> bool:
    """Tells whether an operation has only made views. `reshape` and `contiguous` may copy, or not."""
    if func._schema.is_mutable:
        return False
    results = [x for x in tree_flatten(found)[0] if isinstance(x, Tensor)]
    given = {x.held.untyped_storage()._cdata for x in on_gpu}
    return bool(results) and all(x.untyped_storage()._cdata in given for x in results)


def name_of(func: Any) -> str:
    """Returns an operation's name; those of ATen without their namespace."""
    name: str = func._schema.name
    return name.removeprefix("aten::")


def _in_backward() -> bool:
    return bool(torch._C._current_graph_task_id() != -1)


def _on_host(x: Any) -> Any:
    if isinstance(x, GpuTensor):
        return x.held
    return OUTER if isinstance(x, torch.device) and x.type == "cuda" else x


def _wrapped(found: Any, on_gpu: list[GpuTensor], on_host: list[Tensor]) -> Any:
    """Returns results as tensors of the device; a tensor that was written in place as itself."""
    owners: dict[int, Tensor] = {id(x.held): x for x in on_gpu}
    owners |= {id(x): x for x in on_host}

    def one(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        owner = owners.get(id(x))
        return GpuTensor(x) if owner is None else owner

    return tree_map(one, found)


def _copied(args: Any, kwargs: Any) -> Tensor:
    """Runs `copy_` between host and device."""
    device = devices.current()
    target: Tensor = args[0]
    source: Tensor = args[1]
    waits = not (args[2] if len(args) > 2 else kwargs.get("non_blocking", False))
    if isinstance(target, GpuTensor):
        device.refuse_in_capture("copy_ from the host")
        if source.dim() or waits:
            device.counts.copy("host->device", source.nbytes, waits=waits)
        target.held.copy_(source)
        return target
    assert isinstance(source, GpuTensor)
    device.refuse_in_capture("copy_ to the host")
    device.counts.copy("device->host", source.held.nbytes, waits=waits)
    if waits:
        device.arrive(device.started)
        target.copy_(source.held)
    else:
        device.copy_late(target, source.held.clone())
    return target


def _refuse_mixed(func: Any, args: Any, on_gpu: list[GpuTensor], on_host: list[Tensor]) -> None:
    """Raises as CUDA does for tensors of two devices; single numbers of the host are allowed, and indices."""
    if not on_gpu or not on_host:
        return
    packet = func.overloadpacket
    if packet in INDEXING:
        values = [x for x in (args[0], args[2] if len(args) > 2 else None) if isinstance(x, Tensor)]
        if not any(x is value and x.dim() for x in on_host for value in values):
            device = devices.current()
            device.refuse_in_capture("indices of the host")
            device.counts.copy("host->device", sum(x.nbytes for x in on_host), waits=True)
            return
    elif not any(x.dim() for x in on_host):
        return
    if _in_backward():
        return  # autograd made it on the outer device
    raise RuntimeError(
        "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! "
        f"({func}, {[tuple(x.shape) for x in on_host]} on the host, at {asked_at()})"
    )


def _count_waits(func: Any, args: Any, kwargs: Any, on_gpu: list[GpuTensor]) -> None:
    if not on_gpu:
        return
    packet = func.overloadpacket
    if packet is aten._local_scalar_dense:
        devices.current().wait("host read")
    elif packet in SIZED_BY_VALUES:
        if packet is not aten.repeat_interleave or kwargs.get("output_size") is None:
            devices.current().wait(f"sizes of {name_of(func)}")
    elif packet in INDEXING and any(
        isinstance(x, Tensor) and x.dtype in (torch.bool, torch.uint8) for x in args[1]
    ):
        devices.current().wait("sizes of a mask's index")


def wrapped_from(call: Callable[..., Any], args: Any, kwargs: Any, name: str) -> Any:
    """Calls a factory on the CPU and puts what it makes on the device."""
    with torch._C.DisableTorchFunctionSubclass():
        found = call(*args, **kwargs)
    if not isinstance(found, Tensor) or isinstance(found, GpuTensor):
        return found
    made: Tensor = GpuTensor(found.detach())
    is_empty = name.startswith("empty")
    if not is_empty:
        devices.current().launch(name)
    devices.current().record(call, args, kwargs, found.detach(), runs=not is_empty)
    return made.requires_grad_() if found.requires_grad else made
