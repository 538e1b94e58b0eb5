"""Holds a run at a distance to its starting policy: beta rises while the KL is above its target.

The rule is Ziegler et al. 2019, arXiv:1909.08593, section 2.2: beta is multiplied by 1 + error x n / horizon,
where error = clip(KL / target - 1, -0.2, 0.2). It is fed by the KL that each update measures anyway
(`kl/reference`), so it costs no forward pass. Here beta never falls below the run's own: a policy that is
nearer than the target is not driven away from its start.

It multiplies beta wherever the algorithm has its KL, in the loss or in the reward. With beta 0 there is
nothing to multiply: such a run (dapo's default) asked for no penalty, and the guard alone watches its
distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from methods.train_config import TrainConfig

MOST_ERROR = 0.2
"""Relative distance to the target beyond which it counts no more: Ziegler et al. 2019."""

GAIN = 1.0
"""A step's share of the horizon, n / horizon: beta changes by a fifth a step at most, by a factor of ten
within 13 steps. Ziegler et al. took 0.1 for runs of 10,000 steps and more;
docs/decisions/0025-guard-and-kl-target.md has the trial.
"""

MOST_BETA = 2.0
"""Largest beta that a run may ask for (methods/train_config.py), and the largest that it is given."""


@dataclass
class KlController:
    """Says by how much beta is multiplied. A part of the training state.

    Attributes:
        scale: beta is multiplied by it; at least 1.
        base_entropy: nats per token of the base, at the first update; None before.
    """

    scale: float = 1.0
    base_entropy: float | None = None

    def target(self, config: TrainConfig) -> float:
        """Returns the KL to hold, in nats per token: the lower of both targets; 0 if there is none."""
        targets = [config.kl_target]
        if self.base_entropy is not None:
            targets.append(config.kl_target_share * self.base_entropy)
        return min((target for target in targets if target > 0), default=0.0)

    def after(self, kl: float | None, entropy: float | None, config: TrainConfig) -> None:
        """Takes in KL and entropy of an update's batch, in nats per token.

        Nothing changes without a target, or without a finite KL: of a step that made no update there is none.
        """
        if self.base_entropy is None:
            self.base_entropy = entropy
        target = self.target(config)
        if target == 0 or config.beta == 0 or kl is None or not math.isfinite(kl):
            return
        error = max(-MOST_ERROR, min(MOST_ERROR, kl / target - 1))
        self.scale = max(1.0, min(self.scale * (1 + GAIN * error), MOST_BETA / config.beta))
