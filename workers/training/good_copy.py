"""The last good state of a run, in the main process's memory: what a rollback goes back to."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor

from workers.training.base.distributed import World
from workers.training.model.policy import Policy
from workers.training.model.sharding import gather_whole
from workers.training.optimizer_state import load_optimizer, optimizer_tensors

WEIGHTS, OPTIMIZER = "weights/", "optimizer/"


class GoodCopy:
    """Holds trained weights and the optimizer's state, on the CPU: with adapter `full` three times the model.

    Its calls are collective, but for `unless_of`.
    """

    def __init__(self, policy: Policy, optimizer: torch.optim.Optimizer, world: World) -> None:
        self._policy = policy
        self._optimizer = optimizer
        self._world = world
        self._tensors: Mapping[str, Tensor] = {}
        """In the main process alone."""
        self._step: int | None = None
        """The step after which the policy was these weights; None where that is not known."""

    def take(self, step: int) -> None:
        """Copies the policy as it is after a step."""
        trained = gather_whole(self._policy.trained(), self._world)
        moments = gather_whole(optimizer_tensors(self._policy, self._optimizer), self._world)
        named = {WEIGHTS + name: tensor for name, tensor in trained.items()}
        named |= {OPTIMIZER + name: tensor for name, tensor in moments.items()}
        self._tensors = {
            name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in named.items()
        }
        self._step = step

    def put_back(self, step: int) -> None:
        """Makes the policy, the sampling copy too, what was copied; `step` is the one after which it is."""
        names = self._world.broadcast(list(self._tensors))
        whole = {name: self._world.broadcast(self._tensors.get(name)) for name in names}
        self._policy.weights_changed()
        self._policy.load_trained(_below(WEIGHTS, whole))
        moments = {name: tensor.clone() for name, tensor in _below(OPTIMIZER, whole).items()}
        load_optimizer(self._policy, self._optimizer, moments)  # it changes them in place: the copy stays
        self._step = step

    def resume(self, file: Path, step: int) -> None:
        """Takes the copy from a saved state; without a file of its own, it is the state's weights."""
        if not file.exists():
            self.take(step)
        elif self._world.is_main:
            self._tensors = load_file(file)

    def unless_of(self, step: int) -> Mapping[str, Tensor] | None:
        """Returns what there is to save beside the policy after a step, tensors of any shape.

        None if that is the good one.
        """
        return None if self._step == step else self._tensors


def _below(prefix: str, tensors: Mapping[str, Tensor | None]) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor
        for name, tensor in tensors.items()
        if name.startswith(prefix) and tensor is not None
    }
