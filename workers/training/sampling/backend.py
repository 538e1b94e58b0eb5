"""Who samples a run's rollouts: the sampler in this process, or a server that is given the policy's weights.

A step asks for groups and is told of each completion as it ends, whoever samples. Evaluations and the KL's
probe always ask the sampler in this process: it samples the weights as a checkpoint holds them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from methods.train_config import TrainConfig
from workers.training.base.distributed import World
from workers.training.base.recorder import Recorder
from workers.training.base.types import Group, Prompt
from workers.training.model.policy import Policy
from workers.training.sampling.asked import OnCompletion, SampledModel, Sampling
from workers.training.sampling.rollout import sample_groups
from workers.training.sampling.turns import Turns


class SamplingInterrupted(Exception):
    """Says that a call to `sample` broke off by a server's fault. All that it has given is void."""


class RolloutBackend(Protocol):
    """Samples the rollouts of one run."""

    def follow(self, updates: int) -> None:
        """Takes over the policy's weights as they are, after so many updates; nothing is sampled meanwhile.

        Every process of a world calls it. Raises `RunFailed` for weights that cannot be taken over.
        """

    def sample(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        on_completion: OnCompletion | None = None,
        turns: Turns | None = None,
    ) -> list[Group]:
        """Returns a group for each prompt, as `sample_groups` does, sampled by the weights it follows.

        Raises `SamplingInterrupted`, after which `recover` is called, and `RunFailed`.
        """

    def recover(self, alive: Callable[[], None]) -> str:
        """Waits until it can sample again, calling `alive` meanwhile.

        Returns nothing then, or after waiting in vain a sentence that says for whom.
        """

    def rest(self) -> None:
        """Lets go of memory that the update could use; every process calls it once all have sampled."""

    def close(self) -> None:
        """Removes what it has left anywhere."""


class InProcess:
    """Samples with the policy's own sampling weights, which follow the policy by themselves."""

    def __init__(self, policy: SampledModel) -> None:
        self._policy = policy

    def follow(self, updates: int) -> None:
        """Does nothing."""

    def sample(
        self,
        prompts: Sequence[Prompt],
        sampling: Sampling,
        on_completion: OnCompletion | None = None,
        turns: Turns | None = None,
    ) -> list[Group]:
        """Returns what `sample_groups` does."""
        return sample_groups(self._policy, prompts, sampling, on_completion, turns=turns)

    def recover(self, alive: Callable[[], None]) -> str:  # noqa: ARG002
        """Returns nothing: it can always sample."""
        return ""

    def rest(self) -> None:
        """Does nothing."""

    def close(self) -> None:
        """Does nothing."""


OpenRollouts = Callable[[Policy, TrainConfig, World, Recorder, str], RolloutBackend]
"""Makes what samples the rollouts of one run, from the run's policy.

The last argument names the run among several of one job, and is empty for one alone. It is collective, and
raises `RunFailed`.
"""


def open_in_process(
    policy: Policy, _config: TrainConfig, _world: World, _recorder: Recorder, _arm: str
) -> InProcess:
    """Returns the sampler in this process."""
    return InProcess(policy)
