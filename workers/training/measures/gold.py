"""The gold grader: a second opinion on evaluation completions, which training never sees."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from graders import Grader
from methods import metrics as names
from methods.train_config import TrainConfig
from workers.training.base.distributed import World
from workers.training.base.types import Group
from workers.training.evaluate import mean_of_rows
from workers.training.rewards import Bases, GradePool, check_reached
from workers.training.trust.selection import Look


class GoldGrades:
    """Grades completions anew by the gold grader. Its calls are collective."""

    def __init__(self, grader: Grader, config: TrainConfig, world: World) -> None:
        self._pool = GradePool(grader, threads=config.grade_concurrency, timeout=config.grade_seconds)
        self._world = world

    def close(self) -> None:
        """Ends the threads."""
        self._pool.close()

    @property
    def is_of_groups(self) -> bool:
        """Tells whether the gold grader compares completions with each other."""
        return self._pool.is_of_groups

    def grade(self, groups: Sequence[Group], base: Bases) -> list[Group]:
        """Returns the same completions with the gold grader's grades, in every process.

        A grader of groups compares them with `base`. Raises `JudgeLost`.
        """
        mine = [replace(group, grades=()) for group in self._world.slice(groups)]
        graded = self._world.merge(self._pool.grade(mine, base))
        check_reached(graded)
        return graded

    @staticmethod
    def metrics(gold: Look, base: Look) -> dict[str, float]:
        """Returns the mean of an evaluation's gold rewards, and of the differences to the base's."""
        differences = [
            None if now is None or before is None else now - before
            for now, before in zip(gold.rows, base.rows, strict=True)
        ]
        found = mean_of_rows(gold.rows)
        over_base = mean_of_rows(differences)
        told = (
            (names.GOLD_REWARD_MEAN, names.GOLD_REWARD_STDERR, found),
            (names.GOLD_OVER_BASE, names.GOLD_OVER_BASE_STDERR, over_base),
        )
        values = {mean: value.mean for mean, _, value in told if value is not None}
        errors = {
            error: value.stderr for _, error, value in told if value is not None and value.stderr is not None
        }
        return values | errors
