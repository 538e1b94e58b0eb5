"""How large rewards have been so far: what noise is measured by where a grader has not stated its range."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from methods.rewards import Scale, scale_of
from methods.train_config import TrainConfig


@dataclass
class RewardsSeen:
    """Holds the largest distance of a reward from 0 so far, in grader units. A part of the training state."""

    largest: float = 0.0

    def note(self, rewards: Iterable[float | None]) -> None:
        """Takes in the rewards of an evaluation or of a step."""
        self.largest = max([self.largest, *(abs(reward) for reward in rewards if reward is not None)])

    def scale(self, config: TrainConfig) -> Scale:
        """Returns the grader's scale, as far as it is known by now."""
        return scale_of(config.reward_range, self.largest)

    def config_now(self, config: TrainConfig) -> TrainConfig:
        """Returns the config with a range as wide as rewards were large, where the grader has stated none."""
        if config.reward_range is not None:
            return config
        return config.model_copy(update={"reward_range": (0.0, min(1.0, self.largest))})
