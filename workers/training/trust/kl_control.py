"""Holds a run at a distance to its starting policy: beta rises as the KL comes near its target.

Two factors multiply beta. One is Ziegler et al. 2019, arXiv:1909.08593, section 2.2: it is multiplied by 1 +
error x n / horizon after each step, where error = clip(KL / target - 1, -0.2, 0.2). It finds the beta that a
long run needs, but by itself it is too slow for one of 40 steps, and made faster it overshoots: in a trial it
went on rising until the reward was lost, and back. The other is a spring, the third power of KL over half
the target, which is there at once and gone at once; it pulls before the target is reached, since Adam carries
the policy on for a dozen steps. Neither falls below 1: a policy that is near its start is
not driven away from it.

It is fed by the KL that each update measures anyway (`kl/reference`), so it costs no forward pass. It
multiplies beta wherever the algorithm has its KL, in the loss or in the reward. With beta 0 there is nothing
to multiply: such a run (dapo's default) asked for no penalty, and the guard alone watches its distance.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from methods.train_config import TrainConfig

MOST_ERROR = 0.2
"""Relative distance to the target beyond which it counts no more: Ziegler et al. 2019, arXiv:1909.08593."""
GAIN = 0.1
"""A step's share of the horizon, n / horizon, as in Ziegler et al. With 1, and nothing else, keyword runs
fell from a reward of 0.98 to 0.20 and came back (docs/decisions/0025-guard-and-kl-target.md).
"""
SPRING_FROM, POWER = 0.5, 3.0
"""Share of the target from which on the spring pulls, and its power: at the target, beta is eight times as
large. With 1 and 2, a task whose reward falls with the KL went to 2.2 and 2.8 times its target in 24 steps
and came back in 100 (docs/decisions/0025-guard-and-kl-target.md).
"""
LEAST_TARGET = 0.05
"""Nats per token below which the share of the base's entropy sets no target. In the trial a base of 0.11 nats
of entropy had to move by 0.06 to learn its task.
"""
MOST_BETA = 2.0
"""Largest beta that a run is given: it follows from the largest that one may ask for
(methods/train_config.py).
"""


@dataclass
class KlController:
    """Says by how much beta is multiplied. A part of the training state.

    Attributes:
        slow: the factor by Ziegler et al.; at least 1.
        fast: the spring at the last update, at least 1.
        base_entropy: nats per token of the base, at the first update; None before.
    """

    slow: float = 1.0
    fast: float = 1.0
    base_entropy: float | None = None

    @property
    def scale(self) -> float:
        """What beta is multiplied by."""
        return self.slow * self.fast

    def target(self, config: TrainConfig) -> float:
        """Returns the KL to hold, in nats per token: the lower of both targets; 0 if there is none."""
        targets = [config.kl_target]
        if self.base_entropy is not None and config.kl_target_share > 0:
            targets.append(max(LEAST_TARGET, config.kl_target_share * self.base_entropy))
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
        most = MOST_BETA / config.beta
        error = max(-MOST_ERROR, min(MOST_ERROR, kl / target - 1))
        self.slow = max(1.0, min(self.slow * (1 + GAIN * error), most))
        self.fast = max(1.0, min(kl / (SPRING_FROM * target), most)) ** POWER
