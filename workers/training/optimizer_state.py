"""An optimizer's state as named tensors, for what is saved on disk and for what is kept to go back to."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from workers.training.model.policy import Policy
from workers.training.model.sharding import like


def optimizer_tensors(policy: Policy, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Returns AdamW's moments, of any shape, and counts as "name/key"; nothing before the first update."""
    return {
        f"{name}/{key}": value
        for name, weight in policy.trained().items()
        for key, value in optimizer.state.get(weight, {}).items()
    }


def load_optimizer(policy: Policy, optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Reverses `optimizer_tensors`; every process is given all tensors, of any shape, and whole."""
    optimizer.state.clear()
    weights = policy.trained()
    for full_name, value in tensors.items():
        name, _, key = full_name.rpartition("/")
        weight = weights[name]
        if key == "step":  # a number of the whole weight; on the CPU but for the fused AdamW
            optimizer.state[weight][key] = value.to(weight.device if optimizer.defaults["fused"] else "cpu")
        else:
            optimizer.state[weight][key] = like(value, weight)
