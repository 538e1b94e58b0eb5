"""What checkpoints are judged by: validation rows, or training rows sampled afresh."""

from __future__ import annotations

from collections.abc import Sequence

from methods.auto import LEAST_UNSEEN, MOST_FRESH, fresh_samples
from methods.train_config import TrainConfig
from workers.training.base.distributed import ALONE, World
from workers.training.base.randomness import shuffled
from workers.training.base.types import Group, Prompt, Split
from workers.training.collector import sample_and_grade
from workers.training.episodes.episodes import Episodes
from workers.training.evaluate import Evaluation
from workers.training.metrics import Clock
from workers.training.model.policy import Policy
from workers.training.rewards import GradePool, check_reached
from workers.training.sampling.rollout import Sampling
from workers.training.trust.base_answers import BaseAnswers
from workers.training.trust.verdict import Basis, Sampled


class Evaluator:
    """Samples and grades what checkpoints are judged by. Its calls are collective.

    Those are the validation rows, where there are at least five, else training rows sampled afresh. In jobs
    of later versions than 0.1.0 they are answered greedily too.

    What validation rows show is to hold for rows like them, so a row is what is compared. What training rows
    show is said of those rows alone, so there it is each completion, the n-th of a row with the n-th of the
    base's.
    """

    def __init__(
        self,
        policy: Policy,
        valid: Sequence[Prompt],
        train: Sequence[Prompt],
        graders: GradePool,
        config: TrainConfig,
        world: World = ALONE,
        episodes: Episodes | None = None,
    ) -> None:
        self.basis: Basis = "unseen" if len(valid) >= LEAST_UNSEEN else "training"
        self._policy = policy
        self._graders = graders
        self._config = config
        self._world = world
        self._episodes = episodes
        self._prompts: dict[Split, Sequence[Prompt]] = {"valid": valid} if valid else {}
        if self.basis == "training":
            chosen = shuffled(len(train), "fresh", config.measuring_seed)[:MOST_FRESH]
            self._prompts["fresh"] = [train[i] for i in sorted(chosen)]
        if config.eval_temperature:
            self._prompts["greedy"] = self._prompts[self._judging]

    @property
    def _judging(self) -> Split:
        return "valid" if self.basis == "unseen" else "fresh"

    @property
    def is_of_groups(self) -> bool:
        """Tells whether the grader compares completions with each other, and here with the base's."""
        return self._graders.is_of_groups

    @property
    def sampled(self) -> Sampled:
        """Returns what checkpoints are judged by."""
        split = self._judging
        rows = len(self._prompts[split])
        return Sampled(self.basis, rows, self._samples(split), self._temperature(split))

    def measure(self, base: BaseAnswers) -> Evaluation:
        """Samples and grades all rows by the policy as it is, with the same random numbers every time.

        A grader of groups compares with `base`. Raises `JudgeLost`.
        """
        return Evaluation({split: self._measure(split, base) for split in self._prompts}, self._judging)

    def answers(self, found: Evaluation) -> Sequence[Group]:
        """Returns the groups that the policy wrote at temperature 1, which need not be sampled again."""
        return found.groups[found.judging] if self._temperature(found.judging) == 1 else ()

    def _measure(self, split: Split, base: BaseAnswers) -> list[Group]:
        config = self._config
        sampling = Sampling(
            samples=self._samples(split),
            max_tokens=config.max_completion_tokens,
            temperature=self._temperature(split),
            key=(split, config.measuring_seed),
            stop=config.stop,
            grammar=self._policy.grammar,
            reader=self._policy.reader,
            thinking_tokens=config.max_thinking_tokens,
        )
        mine = self._world.slice(self._prompts[split])
        graded = sample_and_grade(
            self._policy, mine, sampling, self._graders, Clock(), self._episodes, base.of(split)
        )
        groups = self._world.merge(graded)
        check_reached(groups)
        return groups

    def _temperature(self, split: Split) -> float:
        """Returns the temperature of a split. In 0.1.0 one completion a validation row was greedy."""
        config = self._config
        if split == "greedy":
            return 0.0
        if split == "valid":
            return validation_temperature(config)
        return config.temperature if config.eval_temperature is None else config.eval_temperature

    def _samples(self, split: Split) -> int:
        """Returns the completions of each row; greedy ones are all the same."""
        if self._temperature(split) == 0:
            return 1
        if split == "fresh":
            return fresh_samples(self._config.eval_samples, len(self._prompts[split]))
        return self._config.eval_samples


def validation_temperature(config: TrainConfig) -> float:
    """Returns the temperature at which validation rows are answered; a single answer is a greedy one."""
    if config.eval_temperature is not None:
        return config.eval_temperature
    return 0.0 if config.eval_samples == 1 else config.temperature
