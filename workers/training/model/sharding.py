"""FSDP2: a model's weights, gradients and optimizer state are split over the processes (arXiv:2304.11277).

Each decoder layer is gathered when it is run and let go again. What is left (embedding, last norm, output
layer) is gathered when a pass begins and kept until it is over, so that a pass takes the same calls in every
process, however many pieces its logits are computed in. Every process therefore has to make the same number
of passes through a sharded decoder: see `fillers`.

Gradients are sums over processes, as `World.sum_gradients` makes them, not FSDP's means.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.nn.functional import linear

from workers.training.base.distributed import World
from workers.training.base.errors import ModelInvalid
from workers.training.model.parts import decoder_of

HEAD = "borrowed_head_"
"""The decoder's name for what is the output layer's: `borrowed_head_weight`."""


def shard(
    model: Any,
    device: torch.device,
    world: World,
    compute: torch.dtype | None = None,
    then: Callable[[str], None] = lambda _: None,
) -> dict[str, nn.Parameter]:
    """Splits a causal model's weights over all processes.

    Weights that require a gradient although others of the model do not (an adapter's) stay whole. A process
    takes its part of a tensor out of it and leaves the rest alone, which other models may share.

    Args:
        model: as loaded, on `device`, the same in every process.
        compute: dtype in which trained weights are gathered and used; by default their own.
        then: is told the name of each layer that has been split.

    Returns:
        The weights by their names in `model` as it was given, sharded or whole.
    """
    names = [name for name, _ in model.named_parameters()]  # the whole weights go as they are split
    whole = _adapters(model)
    for weight in whole:
        weight.data = weight.data.to(device)
    moved = _borrow_head(model)
    decoder = decoder_of(model)
    options: dict[str, Any] = {
        "mesh": init_device_mesh(device.type, (world.size,)),
        "mp_policy": MixedPrecisionPolicy(param_dtype=compute, reduce_dtype=torch.float32),
        "ignored_params": whole,
    }
    name_of = {module: name for name, module in model.named_modules()}
    for layer in _layers(model, decoder):
        fully_shard(layer, **options)
        then(name_of[layer])
    fully_shard(decoder, **options)
    model.to(device)  # what is no weight, or whole
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
    return {name: model.get_parameter(moved.get(name, name)) for name in names}


def _adapters(model: Any) -> set[nn.Parameter]:
    """Returns the weights that are trained of a model of which others are not."""
    trained = {weight for weight in model.parameters() if weight.requires_grad}
    return trained if len(trained) < sum(1 for _ in model.parameters()) else set()


def close(model: Any) -> None:
    """Lets go of the gathered weights, so that the sharded ones count again and may be changed."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def cast_weights(module: nn.Module, dtype: torch.dtype) -> None:
    """Gives a module's weights a dtype, one by one; buffers keep theirs."""
    for weight in module.parameters():
        weight.data = weight.data.to(dtype)


def whole(tensor: Tensor) -> Tensor:
    """Returns a sharded tensor of any shape gathered, in every process (collective); any other as it is."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def gather_whole(tensors: Mapping[str, Tensor], world: World) -> dict[str, Tensor]:
    """Returns tensors of any shape in the main process alone, sharded ones gathered on the CPU one by one.

    It is collective.
    """
    found = {}
    for name, tensor in tensors.items():
        full = whole(tensor.detach())
        if world.is_main:
            found[name] = full.cpu() if isinstance(tensor, DTensor) else full
    return found


def like(full: Tensor, weight: Tensor) -> Tensor:
    """Puts a tensor of any shape, which every process holds whole, on a weight's device, split like it.

    Sends nothing.
    """
    full = full.to(weight.device)
    if not isinstance(weight, DTensor):
        return full
    return distribute_tensor(full, weight.device_mesh, weight.placements, src_data_rank=None)


def clip_gradients(weights: Iterable[Tensor], largest: float) -> float:
    """Scales the gradients of weights of any shape so that their common norm is at most `largest`.

    It is torch's `clip_grad_norm_` for whole and sharded weights together, the same number in every process.

    Returns:
        The norm before.
    """
    grads = [weight.grad for weight in weights if weight.grad is not None]
    sharded = [grad for grad in grads if isinstance(grad, DTensor)]
    rest = [grad for grad in grads if not isinstance(grad, DTensor)]
    squares = torch.nn.utils.get_total_norm(rest).square()
    if sharded:
        local = torch.nn.utils.get_total_norm([grad.to_local() for grad in sharded]).square()
        local = local.to(sharded[0].device)
        dist.all_reduce(local, group=sharded[0].device_mesh.get_group())
        squares = squares.to(local.device) + local
    norm = squares.sqrt()
    scale = (largest / (norm + 1e-6)).clamp(max=1.0)
    for grad in grads:
        (grad.to_local() if isinstance(grad, DTensor) else grad).mul_(scale.to(grad.device))
    return float(norm)


class BorrowedHead(nn.Module):
    """Is the output layer of a sharded model: its weight is the decoder's, with which it is gathered."""

    def __init__(self, owner: nn.Module, weight: str, bias: str | None) -> None:
        super().__init__()
        self._owner = (owner,)  # in a tuple, so that it does not become a child of this module
        self._names = (weight, bias)

    @property
    def weight(self) -> Any:
        """Returns the decoder's weight, (V, H)."""
        return getattr(self._owner[0], self._names[0])

    @property
    def bias(self) -> Any:
        """Returns the decoder's bias, (V,); None without one."""
        name = self._names[1]
        return None if name is None else getattr(self._owner[0], name)

    def forward(self, states: Tensor) -> Tensor:
        """Computes logits: (..., H) -> (..., V)."""
        return linear(states, self.weight, self.bias)


def _borrow_head(model: Any) -> dict[str, str]:
    """Gives the output layer's weights to the decoder; returns their new names by their old ones."""
    head, decoder, embedding = (
        model.get_output_embeddings(),
        decoder_of(model),
        model.get_input_embeddings(),
    )
    if not isinstance(head, nn.Linear):
        raise ModelInvalid(f"A model whose output layer is a {type(head).__name__} cannot be sharded.")
    names = {module: name for name, module in model.named_modules()}
    bias = None
    moved = {}
    if head.bias is not None:
        bias = f"{HEAD}bias"
        decoder.register_parameter(bias, head.bias)
        moved[f"{names[head]}.bias"] = f"{names[decoder]}.{bias}"
    if head.weight is embedding.weight:
        borrowed = BorrowedHead(embedding, "weight", None)
        if bias is not None:
            raise ModelInvalid("A model whose output layer is tied and has a bias cannot be sharded.")
    else:
        decoder.register_parameter(f"{HEAD}weight", head.weight)
        moved[f"{names[head]}.weight"] = f"{names[decoder]}.{HEAD}weight"
        borrowed = BorrowedHead(decoder, f"{HEAD}weight", bias)
    model.set_output_embeddings(borrowed)
    return moved


def _layers(model: Any, decoder: Any) -> Iterator[nn.Module]:
    """Yields the decoder's layers, as its family names them."""
    kinds = set(model._no_split_modules or ())
    layers = [module for module in decoder.modules() if type(module).__name__ in kinds]
    if not layers:
        raise ModelInvalid(f"{type(model).__name__} does not name its layers, so it cannot be sharded.")
    yield from layers
