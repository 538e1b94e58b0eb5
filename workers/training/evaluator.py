"""What checkpoints are judged by: validation rows, or training rows sampled afresh."""

from __future__ import annotations

from collections.abc import Sequence

from methods.auto import LEAST_UNSEEN, MOST_FRESH
from methods.train_config import TrainConfig
from workers.training.base.distributed import ALONE, World
from workers.training.base.randomness import shuffled
from workers.training.base.types import Group, Prompt, Split
from workers.training.collector import sample_and_grade
from workers.training.evaluate import Evaluation
from workers.training.metrics import Clock
from workers.training.model.policy import Policy
from workers.training.rewards import GradePool
from workers.training.sampling.rollout import Sampling
from workers.training.trust.verdict import Basis, Sampled


class Evaluator:
    """Samples and grades what checkpoints are judged by. Its calls are collective.

    Those are the validation rows, where there are at least five, else training rows sampled afresh. In jobs
    of later versions than 0.1.0 they are answered greedily too.
    """

    def __init__(
        self,
        policy: Policy,
        valid: Sequence[Prompt],
        train: Sequence[Prompt],
        graders: GradePool,
        config: TrainConfig,
        world: World = ALONE,
    ) -> None:
        self.basis: Basis = "unseen" if len(valid) >= LEAST_UNSEEN else "training"
        self._policy = policy
        self._graders = graders
        self._config = config
        self._world = world
        self._prompts: dict[Split, Sequence[Prompt]] = {"valid": valid} if valid else {}
        if self.basis == "training":
            chosen = shuffled(len(train), "fresh", config.seed)[:MOST_FRESH]
            self._prompts["fresh"] = [train[i] for i in sorted(chosen)]
        if config.eval_temperature:
            self._prompts["greedy"] = self._prompts[self._judging]

    @property
    def _judging(self) -> Split:
        return "valid" if self.basis == "unseen" else "fresh"

    @property
    def sampled(self) -> Sampled:
        """Returns what checkpoints are judged by."""
        temperature = evaluation_temperature(self._config)
        return Sampled(self.basis, len(self._prompts[self._judging]), self._config.eval_samples, temperature)

    def measure(self) -> Evaluation:
        """Samples and grades all rows by the policy as it is, with the same random numbers every time."""
        return Evaluation({split: self._measure(split) for split in self._prompts}, self._judging)

    def _measure(self, split: Split) -> list[Group]:
        config = self._config
        is_greedy = split == "greedy"
        sampling = Sampling(
            samples=1 if is_greedy else config.eval_samples,
            max_tokens=config.max_completion_tokens,
            temperature=0.0 if is_greedy else evaluation_temperature(config),
            key=(split, config.seed),
            stop=config.stop,
            grammar=self._policy.grammar,
        )
        mine = self._world.slice(self._prompts[split])
        return self._world.merge(sample_and_grade(self._policy, mine, sampling, self._graders, Clock()))


def evaluation_temperature(config: TrainConfig) -> float:
    """Returns the temperature at which checkpoints are judged. In 0.1.0 one completion a row was greedy."""
    if config.eval_temperature is not None:
        return config.eval_temperature
    return 0.0 if config.eval_samples == 1 else config.temperature
