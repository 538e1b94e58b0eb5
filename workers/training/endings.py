"""How a run ends, or pauses, before its last step: budgets that are spent, evaluations that are level."""

from __future__ import annotations

from graders.types import add_usages
from methods import metrics as names
from methods.train_config import TrainConfig
from workers.training.base.distributed import ALONE, World
from workers.training.base.recorder import Recorder
from workers.training.metrics import Clock
from workers.training.state import Progress
from workers.training.trust.arm import Others, Totals, nobody
from workers.training.trust.budgets import SpentBudget, find_spent_budget, spent_so_far
from workers.training.trust.early_stop import find_level
from workers.training.trust.ending import EARLY_STOP, budget_in_words, level_in_words


class Endings:
    """Decides after each step whether it is the last one, and tells why."""

    def __init__(
        self,
        config: TrainConfig,
        total_steps: int,
        recorder: Recorder,
        world: World = ALONE,
        others: Others = nobody,
    ) -> None:
        """`others` tells what the job's other arms have spent: budgets are the job's."""
        self.is_pausing = False
        """Whether a spent budget makes the run pause before its next step."""
        self._config = config
        self._total_steps = total_steps
        self._recorder = recorder
        self._world = world
        self._others = others

    def spent_budget(self, progress: Progress, clock: Clock) -> SpentBudget | None:
        """Returns a budget that is used up; None at the last step, where it changes nothing any more.

        `clock` is that of the step under way. The call is collective: the processes' clocks differ.
        """
        if progress.step == self._total_steps:
            return None
        spent = self._spent(progress, progress.seconds + clock.metrics()[names.TIME_STEP])
        return self._world.broadcast(find_spent_budget(self._config, spent, progress.spent_before))

    def obey(self, budget: SpentBudget, progress: Progress) -> None:
        """Ends the run with this step, or lets it pause after it: what is granted then counts from here."""
        pauses = self._config.on_budget == "pause"
        said = budget_in_words(progress.step, self._total_steps, budget, pauses=pauses)
        if pauses:
            self.is_pausing = True
            progress.spent_before = self._spent(progress, progress.seconds)
            self._recorder.pausing(said)
        else:
            progress.ended = budget.name
            self._recorder.note("warn", said)

    def end_if_level(self, progress: Progress) -> None:
        """Ends the run with this step if its evaluations have been level.

        One whose completions have not differed at all yet goes on until enough were seen to fail it for that.
        """
        if not self._config.early_stop or progress.step == self._total_steps:
            return
        if not (progress.start.is_over or self._config.allow_flat_reward):
            return
        is_solved = progress.visits.is_all_solved
        level = find_level(
            [look.rows for look in progress.looks if not look.is_given_up],
            self._config.early_stop_evals,
            least=progress.rewards_seen.scale(self._config).least_spread,
            is_solved=is_solved,
        )
        if level is not None:
            progress.ended = EARLY_STOP
            said = level_in_words(
                progress.step, self._total_steps, level, progress.seconds, is_solved=is_solved
            )
            self._recorder.note("info", said)

    def _spent(self, progress: Progress, seconds: float) -> dict[str, float]:
        others = self._others(totals_of(progress))
        return spent_so_far(
            self._config,
            seconds=seconds + others.seconds,
            sampled_tokens=progress.sampled_tokens + others.sampled_tokens,
            usage=add_usages([progress.grader_usage, others.usage]),
        )


def totals_of(progress: Progress) -> Totals:
    """Returns what one run has spent."""
    return Totals(
        trained_tokens=progress.trained_tokens,
        seconds=progress.seconds,
        sampled_tokens=progress.sampled_tokens,
        usage=progress.grader_usage,
    )
