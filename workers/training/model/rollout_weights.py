"""How the sampling copy follows a LoRA adapter: by the sum of base and delta, or beside the base.

A 16-bit sum rounds a small delta away: what is left of it has a cosine of 0.37 / 0.65 / 0.89 / 0.99 with the
delta where mean |delta| is 0.0003 / 0.001 / 0.003 / 0.01 of mean |W|. So a 16-bit layer computes base and
adapter apart while the delta is small, as the trainer does, and their sum when it has grown, which takes two
products less. An fp32 layer always holds the sum.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from peft.tuners.lora import ParamWrapper
from torch import Tensor, nn

from workers.training.model.merged_lora import mark_summed
from workers.training.model.quantised import QuantisedLinear
from workers.training.model.sharding import whole

ADAPTER = "default"

MERGED_FROM = 0.003
"""The mean |delta| / mean |W| from which a 16-bit layer holds the sum. By the trial above, where the sum
keeps a cosine of 0.89 with the delta.
"""


class Branch(NamedTuple):
    """Is what an adapter adds to a layer: scale * B A x, in fp32."""

    down: Tensor  # (rank, inputs)
    up: Tensor  # (outputs, rank), with the scale

    def delta(self) -> Tensor:
        """Returns what it adds to the layer's weight, (outputs, inputs)."""
        return self.up @ self.down

    def add_to(self, weight: Tensor) -> Tensor:
        """Adds what it adds to the layer's weight to one in fp32, in place, without a second one like it."""
        return weight.addmm_(self.up, self.down)

    def size(self) -> float:
        """Returns the Euclidean norm of what it adds to the layer's weight, without making that."""
        inner = (self.up.T @ self.up).double() * (self.down @ self.down.T).double()
        return math.sqrt(max(0.0, float(inner.sum())))

    def __call__(self, states: Tensor) -> Tensor:
        """Computes (..., inputs) -> (..., outputs), fp32."""
        return (states.float() @ self.down.T) @ self.up.T


class FollowingLinear(nn.Linear):
    """Is a 16-bit linear layer that adds `branch` to what it computes, unless its weight holds that already.

    On a GPU it computes with `down` and `up`, the branch in the dtype of the weight: products of 16 bits are
    summed up in fp32, and what rounding the factors loses is a 256th of the branch. They stay where they are
    in memory, and add nothing while there is no branch. Its state dict holds the sum in any case.
    """

    branch: Branch | None = None
    down: Tensor | None
    up: Tensor | None

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register_buffer("down", None, persistent=False)
        self.register_buffer("up", None, persistent=False)

    @property
    def rank(self) -> int:
        """Returns the rank of the branches that there is room for."""
        return 0 if self.down is None else len(self.down)

    def make_room(self, rank: int) -> None:
        """Gives branches of a rank their place in memory; it is kept for as long as the rank is."""
        if rank != self.rank:
            with torch.inference_mode(False):  # what is made inside could not be written to outside
                self.down = self.weight.new_zeros(rank, self.in_features)
                self.up = self.weight.new_zeros(self.out_features, rank)

    def set_branch(self, branch: Branch) -> None:
        """Adds a branch from now on."""
        self.make_room(len(branch.down))
        assert self.down is not None
        assert self.up is not None
        self.branch = branch
        self.down.copy_(branch.down)
        self.up.copy_(branch.up)

    def drop_branch(self) -> None:
        """Adds nothing from now on."""
        self.branch = None
        if self.up is not None:
            self.up.zero_()

    def forward(self, input: Tensor) -> Tensor:
        """Computes (..., inputs) -> (..., outputs), in the dtype of the weight."""
        found = super().forward(input)
        if input.device.type != "cuda" or self.down is None or self.up is None:
            return found if self.branch is None else (found + self.branch(input)).to(found.dtype)
        # Also where there is nothing to add: a graph that was captured then adds what comes later.
        low = nn.functional.linear(input, self.down)
        return torch.addmm(found.flatten(0, -2), low.flatten(0, -2), self.up.T).view_as(found)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if self.branch is not None:
            summed = self.weight.float() + self.branch.delta()
            destination[prefix + "weight"] = summed.to(self.weight.dtype)


def own_weight(model: Any, name: str, parameter: str = "weight") -> Any:
    """Gives a layer of the sampling copy a weight of its own, which may change; returns the layer.

    A quantised layer keeps its weight: no sum is written into it, the adapter stands beside it. Raises
    `AttributeError` where it has no parameter of that name.
    """
    layer: Any = model.get_submodule(name)
    if isinstance(layer, QuantisedLinear):
        return layer
    weight = nn.Parameter(getattr(layer, parameter).detach().clone(), requires_grad=False)
    if type(layer) is nn.Linear and weight.dtype.itemsize == 2:
        following = FollowingLinear(layer.in_features, layer.out_features, bias=False, device="meta")
        following.bias = layer.bias
        following.eval()
        model.set_submodule(name, following)
        layer = following
    setattr(layer, parameter, weight)
    return layer


def adapted_parameter(layer: Any) -> str:
    """Returns the name of the parameter that a LoRA layer adapts."""
    return str(layer.parameter_name) if isinstance(layer, ParamWrapper) else "weight"


def adapted_base(layer: Any) -> Any:
    """Returns the parameter of the base that a LoRA layer adapts, perhaps sharded."""
    return getattr(layer.get_base_layer(), adapted_parameter(layer))


@torch.no_grad()
def follow(layer: Any, copied: Any, merged_from: float = MERGED_FROM) -> None:
    """Lets a layer of the sampling copy compute what a LoRA layer computes now: W + scale * B A, in fp32.

    `merged_from` is the size of the change, mean |delta| / mean |W|, from which a 16-bit layer holds the sum.
    It is collective where the LoRA layer's base is sharded.
    """
    if isinstance(layer, ParamWrapper):
        _follow_parameter(layer, copied)
        return
    if isinstance(copied, QuantisedLinear):
        copied.unmerge()
        copied.branch = (
            _in_place(copied.branch, _branch(layer)) if layer.lora_B[ADAPTER].weight.any() else None
        )
        return
    base = whole(adapted_base(layer))
    delta = layer.get_delta_weight(ADAPTER).float()
    if isinstance(copied, FollowingLinear):
        copied.drop_branch()
        copied.make_room(layer.r[ADAPTER])
        if 0 < delta.abs().mean() < merged_from * base.abs().mean(dtype=torch.float32):
            copied.set_branch(_branch(layer))
            copied.weight.copy_(base)
            return
    copied.weight.copy_(base.float() + delta)
    mark_summed(layer)


def _branch(layer: Any) -> Branch:
    """Copies what an adapter adds now: the trained weights change while the next rollouts are sampled."""
    down, up = layer.lora_A[ADAPTER].weight.float(), layer.lora_B[ADAPTER].weight.float()
    return Branch(down.clone(), up * layer.scaling[ADAPTER])


def _in_place(held: Any, branch: Branch) -> Branch:
    """Returns a branch in the memory of the one that a layer held, which captured steps read, if it fits."""
    if not isinstance(held, Branch) or held.down.shape != branch.down.shape:
        return branch
    for place, values in zip(held, branch, strict=True):
        place.copy_(values)
    return held


def _follow_parameter(layer: Any, copied: Any) -> None:
    """Does so for a parameter of several matrices. PEFT itself computes with the sum in their dtype."""
    summed = whole(adapted_base(layer)).float() + layer.get_delta_weight(ADAPTER).float()
    getattr(copied, layer.parameter_name).copy_(summed)
