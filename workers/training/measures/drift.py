"""How far a run's policy has drifted: its KL to where it started, and its loss on the canary."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from methods import metrics as names
from methods.rows import Row
from methods.train_config import TrainConfig
from workers.training.base.distributed import ALONE, World
from workers.training.base.randomness import shuffled
from workers.training.base.types import Group, Prompt, ScoredText
from workers.training.evaluate import Estimate
from workers.training.measures.canary import Canary, CanaryLoss
from workers.training.measures.kl_probe import ProbeKl, probe_kl
from workers.training.model.base_model import load_base
from workers.training.model.policy import Policy

EXTRAS = {
    "kl_pooled": names.KL_POOLED_MEAN,
    "kl_per_answer": names.KL_ANSWER_MEAN,
    "kl_per_answer_stderr": names.KL_ANSWER_STDERR,
    "kl_to_origin": names.KL_ORIGIN_MEAN,
    "kl_to_origin_stderr": names.KL_ORIGIN_STDERR,
    "kl_to_origin_per_answer": names.KL_ORIGIN_ANSWER_MEAN,
    "canary": names.CANARY_LOSS,
    "canary_over_base": names.CANARY_OVER_BASE,
    "canary_over_base_stderr": names.CANARY_OVER_BASE_STDERR,
}
"""What a checkpoint keeps of it, by the names of `Checkpoint.extra`."""


class Drift(NamedTuple):
    """Holds what was measured of the policy as it was."""

    kl: ProbeKl
    canary: CanaryLoss | None

    def metrics(self) -> dict[str, float]:
        """Returns it under the names of a step's metrics; what is unknown is left out."""
        start, origin = self.kl.start, self.kl.origin
        values = _told(names.KL_PROBE_MEAN, names.KL_PROBE_STDERR, start.per_token)
        values |= _told(names.KL_POOLED_MEAN, names.KL_POOLED_STDERR, start.pooled)
        values |= _told(names.KL_ANSWER_MEAN, names.KL_ANSWER_STDERR, start.per_answer)
        values[names.KL_PROBE_ANSWERS] = float(start.per_token.n)
        if origin is not None:
            values |= _told(names.KL_ORIGIN_MEAN, names.KL_ORIGIN_STDERR, origin.per_token)
            values |= _told(names.KL_ORIGIN_ANSWER_MEAN, names.KL_ORIGIN_ANSWER_STDERR, origin.per_answer)
        if self.canary is not None:
            values |= _told(names.CANARY_LOSS, names.CANARY_LOSS_STDERR, self.canary.loss)
            values |= _told(names.CANARY_OVER_BASE, names.CANARY_OVER_BASE_STDERR, self.canary.over_base)
        return values

    @property
    def scored(self) -> tuple[ScoredText, ...]:
        """Returns the texts that a checkpoint keeps."""
        return () if self.canary is None else self.canary.scored

    def extra(self) -> dict[str, float | str | None]:
        """Returns what a checkpoint keeps of it, beside its KL per token."""
        values = self.metrics()
        return {key: values[name] for key, name in EXTRAS.items() if name in values}


class DriftMeter:
    """Measures one run's policy again and again. Its calls are collective."""

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        config: TrainConfig,
        world: World = ALONE,
        canary_rows: Sequence[Row] | None = None,
    ) -> None:
        """`prompts` are those that the KL's probe is chosen from.

        `canary_rows` are the user's own texts; None stands for those of the package.
        """
        self.policy = policy
        chosen = shuffled(len(prompts), "probe", config.measuring_seed)[: config.kl_probe_size]
        self._probe = [prompts[i] for i in sorted(chosen)]
        self._config = config
        self._world = world
        self._canary = Canary(policy, world, canary_rows)
        self._origin = _origin(config, policy)

    def measure(self, answers: Sequence[Group] = ()) -> Drift:
        """Measures both for the policy as it is.

        `answers` are groups that this very policy has just written at temperature 1; they save sampling.
        """
        return Drift(self.measure_kl(answers), self._canary.measure())

    def measure_kl(self, answers: Sequence[Group] = ()) -> ProbeKl:
        """Measures the KL alone, with the same random numbers every time."""
        return probe_kl(
            self.policy, self._probe, self._config, self._world, answers=answers, origin=self._origin
        )


def _origin(config: TrainConfig, policy: Policy) -> Any | None:
    """Returns the model that a tuned base was tuned from, whole in every process; it stays in memory."""
    if config.origin_path is None:
        return None
    return load_base(
        Path(config.origin_path), policy.device, dtype=config.dtype, precision=config.base_precision
    ).model


def _told(mean: str, stderr: str, found: Estimate) -> dict[str, float]:
    return {mean: found.mean} if found.stderr is None else {mean: found.mean, stderr: found.stderr}
