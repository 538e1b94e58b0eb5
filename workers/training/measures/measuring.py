"""What is measured of a policy at an evaluation: rewards, drift, and how it compares with the base."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from graders import Grader
from graders.types import add_usages
from methods import metrics as names
from methods.rewards import scale_of
from methods.train_config import TrainConfig
from workers.training.base.distributed import World
from workers.training.base.recorder import Recorder
from workers.training.base.types import Checkpoint, Group, Split
from workers.training.checkpoints import make_checkpoint
from workers.training.evaluate import Evaluation
from workers.training.evaluator import Evaluator
from workers.training.keeper import Keeper
from workers.training.measures.drift import DriftMeter
from workers.training.measures.gold import GoldGrades
from workers.training.metrics import Clock, evaluation_metrics
from workers.training.rewards import failed_share, first_messages
from workers.training.state import Progress
from workers.training.trust.arm import Arm
from workers.training.trust.gold import Gap, gold_alarm, gold_gaps
from workers.training.trust.power import Judging, rewards_by_prompt, smallest_gain
from workers.training.trust.selection import Judged, Look, judge

KEPT_OF_GOLD = {
    "gold_reward": names.GOLD_REWARD_MEAN,
    "gold_over_base": names.GOLD_OVER_BASE,
    "gold_gap": names.GOLD_GAP,
    "gold_gap_low": names.GOLD_GAP_LOW,
    "gold_gap_high": names.GOLD_GAP_HIGH,
}
"""What a checkpoint keeps of the gold grader, and the metric that it is."""
COMPARED = (
    "Checkpoints are judged by {sampled}, against what the base has written there: the grader compares"
    " answers with each other, so that its values mean nothing by themselves. 0.5 is as good as the base, and"
    " what the base itself gets at each row; above it this grader prefers the checkpoint."
)


class Measured(NamedTuple):
    """Holds an evaluation: the checkpoint to be, its looks, the comparisons so far, and its metrics.

    Attributes:
        checkpoint: its folder is not there yet.
        look: what it is judged by.
        gold: what the gold grader says of the same completions; None without one.
        gaps: between the reward and the gold reward, at the evaluations so far; none without a gold grader.
        judged: this run's looks so far against the base, right for those of the job's other arms too.
        values: metrics of the step.
    """

    checkpoint: Checkpoint
    look: Look
    gold: Look | None
    gaps: list[Gap]
    judged: list[Judged]
    values: dict[str, float]


class Measuring:
    """Measures the policy of one run whenever it is due. Its calls are collective."""

    def __init__(
        self,
        keeper: Keeper,
        evaluator: Evaluator,
        drift: DriftMeter,
        config: TrainConfig,
        recorder: Recorder,
        world: World,
        arm: Arm,
        gold: Grader | None = None,
    ) -> None:
        """`gold` is the gold grader, where there is one."""
        self._keeper = keeper
        self._evaluator = evaluator
        self._drift = drift
        self._config = config
        self._recorder = recorder
        self._world = world
        self._arm = arm
        self._gold = GoldGrades(gold, config, world) if gold is not None else None

    def close(self) -> None:
        """Ends the threads."""
        if self._gold is not None:
            self._gold.close()

    @property
    def _progress(self) -> Progress:
        return self._keeper.progress

    def measure(self, step: int, epoch: int, clock: Clock) -> Measured:
        """Measures the policy as delivered, and compares it with the base and all checkpoints before."""
        with clock.phase("validating", "eval"), self._drift.policy.as_delivered() as error:
            found = self._evaluator.measure(self._progress.base_answers)
            drift = self._drift.measure(self._evaluator.answers(found))
            gold = self._measure_gold(step, found.groups[found.judging])
        for split, groups in found.groups.items():
            count_spent(self._progress, groups)
            self._progress.rewards_seen.note(grade.reward for group in groups for grade in group.grades)
            self._recorder.rollouts(split, step, epoch, groups)
            self._note_failed_grades(step, split, groups)
        if step == 0:
            self._keep_for_comparison(found)
        if step == 0 and not self._evaluator.is_of_groups:
            self._note_start(found)
            self._tell_smallest_gain(found)
        kl = drift.kl.start.per_token
        look = Look(step, kl.mean, tuple(found.rows))
        judged = self._judge(look)
        last = judged[-1] if judged and judged[-1].step == step else None
        checkpoint = make_checkpoint(
            self._keeper.checkpoint_folder(), step, epoch, kl, found.reward("valid"), last, drift.scored
        )
        greedy = found.reward("greedy")
        checkpoint.extra.update(drift.extra())
        reward = found.reward(found.judging)
        checkpoint.extra.update(
            {
                "basis": self._evaluator.basis,
                "reward": reward.mean if reward else None,
                "greedy_reward": greedy.mean if greedy else None,
                **({} if error is None else {"rounding_error": error}),
            }
        )
        if last is not None:
            checkpoint.extra.update({"p": last.p, "low": last.low, "high": last.high})
        values = evaluation_metrics(found, last) | drift.metrics()
        gaps: list[Gap] = []
        if gold is not None:
            gaps = gold_gaps([*self._progress.looks, look], [*self._progress.gold, gold], self._config)
            values |= self._compare_gold(checkpoint, gold, gaps)
        return Measured(checkpoint, look, gold, gaps, judged, values)

    def note(self, measured: Measured) -> None:
        """Keeps the looks of an evaluation, and warns if the gold grader says otherwise than the reward."""
        self._progress.looks.append(measured.look)
        if measured.gold is None:
            return
        self._progress.gold.append(measured.gold)
        if self._progress.is_gold_noted:
            return
        alarm = gold_alarm(measured.gaps)
        if alarm is not None:
            self._progress.is_gold_noted = True
            self._recorder.note("warn", alarm)

    def _judge(self, look: Look) -> list[Judged]:
        """Compares this run's looks with the base, by a test over the looks of all arms so far."""
        base, *own = [*self._progress.looks, look]
        others = [other._replace(step=-1 - i) for i, other in enumerate(self._arm.looks)]
        judged = judge([base, *others, *own], self._config.measuring_seed)
        return [one for one in judged if one.step > 0]

    def _measure_gold(self, step: int, groups: Sequence[Group]) -> Look | None:
        """Runs the gold grader on the completions that the policy is judged by; it counts as spent."""
        if self._gold is None:
            return None
        graded = self._gold.grade(groups, self._progress.base_answers.of(self._judging))
        self._progress.grader_usage = add_usages(
            [self._progress.grader_usage, *(grade.usage for group in graded for grade in group.grades)]
        )
        grades = [grade for group in graded for grade in group.grades]
        if (share := failed_share(grades)) > 0:
            messages = "; ".join(first_messages(grades))
            self._recorder.note("warn", f"Step {step}: {share:.0%} of the gold grades failed: {messages}")
        rows = Evaluation({self._judging: graded}, self._judging).rows
        return Look(step, 0.0, tuple(rows))

    @property
    def _judging(self) -> Split:
        return "valid" if self._evaluator.basis == "unseen" else "fresh"

    def _compare_gold(self, checkpoint: Checkpoint, gold: Look, gaps: Sequence[Gap]) -> dict[str, float]:
        """Returns the gold grader's metrics, and lets the checkpoint keep them."""
        assert self._gold is not None
        base = self._progress.gold[0] if self._progress.gold else gold
        values = self._gold.metrics(gold, base)
        if gaps and gaps[-1].step == gold.step:
            last = gaps[-1]
            values |= {
                names.GOLD_GAP: last.mean,
                names.GOLD_GAP_LOW: last.low,
                names.GOLD_GAP_HIGH: last.high,
            }
        checkpoint.extra.update({key: values.get(name) for key, name in KEPT_OF_GOLD.items()})
        return values

    def _keep_for_comparison(self, found: Evaluation) -> None:
        """Keeps what the base wrote, where a grader compares with it."""
        if self._evaluator.is_of_groups:
            self._recorder.note("info", COMPARED.format(sampled=self._evaluator.sampled))
        elif self._gold is None or not self._gold.is_of_groups:
            return
        self._progress.base_answers.note(found.groups)

    def _note_start(self, found: Evaluation) -> None:
        """Lets the base's own completions count among the first ones, where those of a prompt may differ."""
        sampled, groups = self._evaluator.sampled, found.groups[found.judging]
        if sampled.samples == 1 or sampled.temperature == 0:
            return
        if sampled.basis == "training":
            self._progress.start.note(0, groups, self._config)
        else:
            self._progress.start.note_unseen(groups, self._config)

    def _tell_smallest_gain(self, found: Evaluation) -> None:
        """Says, before anything is trained, what gain the rows can show at all."""
        looks = self._arm.planned_looks or -(-self._keeper.total_steps // self._config.eval_interval)
        rewards = rewards_by_prompt([group.grades for group in found.groups[found.judging]])
        how = self._evaluator.sampled
        by = Judging(how.basis, how.rows, how.samples, looks)
        smallest = smallest_gain(rewards, by, scale_of(self._config.reward_range)) if rewards else None
        if smallest is not None:
            self._recorder.note(
                "info",
                f"Checkpoints are judged by {self._evaluator.sampled}. The smallest gain that these can show"
                f" is about {smallest:.2g} of the grader's units, with {looks} checkpoints.",
            )

    def _note_failed_grades(self, step: int, split: Split, groups: Sequence[Group]) -> None:
        grades = [grade for group in groups for grade in group.grades]
        share = failed_share(grades)
        if split != "greedy" and share > self._config.grade_failure_limit:
            messages = "; ".join(first_messages(grades))
            self._recorder.note(
                "warn", f"Step {step}: {share:.0%} of the validation grades failed: {messages}"
            )


def count_spent(progress: Progress, groups: Sequence[Group]) -> None:
    """Counts the tokens of completions, and those that their grades took, as spent."""
    completions = [completion for group in groups for completion in group.completions]
    progress.sampled_tokens += sum(completion.n_sampled for completion in completions)
    spent = add_usages(grade.usage for group in groups for grade in group.grades)
    progress.grader_usage = add_usages([progress.grader_usage, spent])
