"""What the loop works on, and what happens around a step: measuring, saving, resuming, giving up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

from graders import Grader
from graders.types import add_usages
from methods.rows import Row
from methods.train_config import TrainConfig
from workers.training.base.distributed import ALONE, World
from workers.training.base.recorder import Recorder
from workers.training.base.types import Checkpoint, Group, Split
from workers.training.checkpoints import deliverable, make_checkpoint
from workers.training.collector import Collector
from workers.training.endings import Endings
from workers.training.evaluate import Evaluation
from workers.training.evaluator import Evaluator
from workers.training.good_copy import GoodCopy
from workers.training.keeper import Keeper
from workers.training.measures.drift import Drift, DriftMeter
from workers.training.metrics import Clock, evaluation_metrics, total_usage_metrics
from workers.training.model.policy import Policy
from workers.training.passes.forward import why_padded
from workers.training.prompts import make_prompts
from workers.training.recorders import Silent
from workers.training.result import RunResult
from workers.training.rewards import (
    GradePool,
    count_steps_over,
    failed_share,
    first_messages,
    nothing_graded,
)
from workers.training.state import Progress, fingerprint, load_pending
from workers.training.trust.ending import GUARD
from workers.training.trust.selection import Judged, Look, judge
from workers.training.trust.verdict import smallest_gain, verdict
from workers.training.update import UpdateStats, make_optimizer
from workers.training.watch import Watch, leaves_checkpoint


class Run:
    """Keeps one run under way. It is a context manager: leaving it ends its threads."""

    def __init__(
        self,
        config: TrainConfig,
        train_rows: Sequence[Row],
        valid_rows: Sequence[Row],
        grader: Grader,
        recorder: Recorder,
        run_dir: Path,
        world: World = ALONE,
        canary_rows: Sequence[Row] | None = None,
    ) -> None:
        """`canary_rows` are the user's own texts for the canary; None stands for those of the package."""
        self.recorder: Recorder = recorder if world.is_main else Silent()
        self.recorder.phase("loading")
        self.config = config
        self.world = world
        self.policy = Policy.load(config, world)
        tokenizer, context = self.policy.tokenizer, self.policy.context
        self.train_prompts = make_prompts(train_rows, tokenizer, context, "training")
        self.valid_prompts = make_prompts(valid_rows, tokenizer, context, "validation")
        self.optimizer = make_optimizer(self.policy, config)
        self.total_steps = config.total_steps(len(train_rows))
        self.keeper = Keeper(
            self.policy,
            self.optimizer,
            config,
            total_steps=self.total_steps,
            belongs_to=fingerprint(config, train_rows, valid_rows),
            recorder=self.recorder,
            run_dir=run_dir,
            world=world,
        )
        self.drift = DriftMeter(
            self.policy, self.valid_prompts or self.train_prompts, config, world, canary_rows
        )
        self.graders = GradePool(grader, threads=config.grade_concurrency, timeout=config.grade_seconds)
        self.collector = Collector(
            self.policy, self.train_prompts, self.graders, config, self.recorder, world
        )
        self.evaluator = Evaluator(
            self.policy, self.valid_prompts, self.train_prompts, self.graders, config, world
        )
        self.endings = Endings(config, self.total_steps, self.recorder, world)
        self.watch = Watch(self.keeper, config, self.recorder)
        if config.guard == "act":
            self.keeper.good = GoodCopy(self.policy, self.optimizer, world)
        state = self.keeper.resume()
        pending = load_pending(state, self.train_prompts) if state is not None else None
        self.collector.resume(self.progress.visits, pending)
        n_rows = self.evaluator.sampled.compared  # 0.1.0 judged by fewer than five rows too
        self.progress.looks = [look for look in self.progress.looks if len(look.rows) == n_rows]

    @property
    def progress(self) -> Progress:
        """Where the run is."""
        return self.keeper.progress

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.graders.close()
        self.collector.close()

    def epoch(self, step: int) -> int:
        """Returns the pass over the data that a step belongs to, from 1; 0 for step 0."""
        return self.config.epoch_of(step, len(self.train_prompts))

    def steps(self) -> Iterator[int]:
        """Yields the steps that are left, until the last one or until something ends the run early."""
        while self.progress.step < self.total_steps and self.progress.ended is None:
            yield self.progress.step + 1

    def check_grades(self, step: int, groups: Sequence[Group]) -> None:
        """Counts what was spent. Raises `GradingFailed` after too many steps with too many failed grades.

        That is also at the end of a run without a single grade. Raises `FlatReward` where the first
        completions teach nothing.
        """
        grades = [grade for group in groups for grade in group.grades]
        self._count_spent(groups)
        self.progress.start.note(step, groups, self.config)
        self.progress.steps_over_failure_limit = count_steps_over(
            self.progress.steps_over_failure_limit,
            step,
            grades,
            limit=self.config.grade_failure_limit,
            steps=min(self.config.grade_failure_steps, self.total_steps),
        )
        self.progress.has_graded |= failed_share(grades) < 1
        if step == self.total_steps and not self.progress.has_graded:
            raise nothing_graded(grades)

    def _count_spent(self, groups: Sequence[Group]) -> None:
        completions = [completion for group in groups for completion in group.completions]
        self.progress.sampled_tokens += sum(len(completion.tokens) for completion in completions)
        spent = add_usages(grade.usage for group in groups for grade in group.grades)
        self.progress.grader_usage = add_usages([self.progress.grader_usage, spent])

    def check_update(self, step: int, stats: UpdateStats) -> None:
        """Counts tokens, and looks at what the update measured. Raises `NonFinite`."""
        self.progress.trained_tokens += stats.trained_tokens
        self.watch.updated(step, stats)

    def measure_base(self) -> None:
        """Validates and saves the untouched base (step 0), unless a state was resumed."""
        if not self.progress.kept:
            self.finish(0, {}, Clock(self.recorder))
            if (reason := why_padded(self.policy.model)) is not None:
                self.recorder.note("warn", f"Training takes more time and memory with this model: {reason}")

    def finish(self, step: int, values: dict[str, Any], clock: Clock) -> None:
        """Tells a step's metrics; where due, measures the policy and saves a checkpoint and the state.

        Where a budget is used up or evaluations are level, the run ends with this step, or pauses after it.
        """
        self.progress.step = step
        budget = self.endings.spent_budget(self.progress, clock)
        ends = budget is not None and self.config.on_budget == "finish"
        is_checkpoint = step % self.config.eval_interval == 0 or step == self.total_steps or ends
        measured = None
        is_called = self.watch.is_called(step, values)
        if is_checkpoint:
            measured = self._measure(step, clock)
            self.progress.looks.append(measured.look)
            values |= measured.values
            budget = budget or self.endings.spent_budget(self.progress, clock)
        elif is_called:
            with clock.phase("validating", "eval"):
                values |= Drift(self.drift.measure_kl(), None).metrics()
        rows = None if measured is None else measured.look.rows
        action, guarded = self.watch.decide(step, values, rows, is_last=ends)
        values |= guarded | total_usage_metrics(self.progress.grader_usage)
        self.keeper.tell(self.epoch(step), values, clock)
        if step > 0:
            for hint in self.progress.hints.after(step, self.total_steps, values, self.config):
                self.recorder.note("warn", hint)
        if self.watch.guard.is_over:
            self.progress.ended = GUARD
        elif budget is not None:
            self.endings.obey(budget, self.progress)
        elif measured is not None and action is None:  # what the guard turns back is not level
            self.endings.end_if_level(self.progress)
        self.watch.tell(step, values, action)
        if measured is not None and leaves_checkpoint(action):
            self.keeper.keep_checkpoint(measured.checkpoint, measured.judged)
        if self.watch.carry_out(step, action):
            self.collector.pending = None  # sampled by the policy that was given up
        if is_checkpoint or step % self.config.save_state_every == 0 or self.progress.ended:
            self.save()

    def result(self) -> RunResult:
        """Returns what is to be delivered, and what is said of it."""
        looks, kept = self.progress.looks, deliverable(self.progress.kept, self.config)
        found = verdict(looks, kept, self.evaluator.sampled, self.config.seed)
        judged = judge(looks, self.config.seed)
        return RunResult(kept[found.step], self.progress.step, self.progress.trained_tokens, found, judged)

    def save(self) -> None:
        """Saves the training state, unless that of this step is saved; then removes what is not needed."""
        self.keeper.save(self.collector.pending)

    def snapshot(self) -> None:
        """Saves the state, and a checkpoint of it unless there is one.

        It is no candidate for delivery, so that a run which pauses has the history of one that does not.
        """

        def measured() -> Checkpoint:
            return self._measure(self.progress.step, Clock(self.recorder)).checkpoint

        self.keeper.snapshot(measured, self.collector.pending)

    def _measure(self, step: int, clock: Clock) -> _Measured:
        """Measures the policy as it is, and compares it with the base and all checkpoints before."""
        self.world.check_same(self.policy.trained().values())
        with clock.phase("validating", "eval"):
            found = self.evaluator.measure()
            drift = self.drift.measure(self.evaluator.answers(found))
        for split, groups in found.groups.items():
            self._count_spent(groups)
            self.recorder.rollouts(split, step, self.epoch(step), groups)
            self._note_failed_grades(step, split, groups)
        if step == 0:
            self._note_start(found)
            self._tell_smallest_gain(found)
        kl = drift.kl.start.per_token
        look = Look(step, kl.mean, tuple(found.rows))
        judged = judge([*self.progress.looks, look], self.config.seed)
        last = judged[-1] if judged and judged[-1].step == step else None
        checkpoint = make_checkpoint(
            self.keeper.checkpoint_folder(), step, self.epoch(step), kl, found.reward("valid"), last
        )
        greedy = found.reward("greedy")
        checkpoint.extra.update(drift.extra())
        checkpoint.extra.update(
            {"basis": self.evaluator.basis, "greedy_reward": greedy.mean if greedy else None}
        )
        if last is not None:
            checkpoint.extra.update({"p": last.p, "low": last.low, "high": last.high})
        return _Measured(checkpoint, look, judged, evaluation_metrics(found, last) | drift.metrics())

    def _note_start(self, found: Evaluation) -> None:
        """Lets completions of the base to training rows count among the first ones, where they may differ."""
        sampled = self.evaluator.sampled
        if sampled.basis == "training" and sampled.samples > 1 and sampled.temperature > 0:
            self.progress.start.note(0, found.groups[found.judging], self.config)

    def _tell_smallest_gain(self, found: Evaluation) -> None:
        """Says, before anything is trained, what gain the rows can show at all."""
        looks = -(-self.total_steps // self.config.eval_interval)
        smallest = smallest_gain(found.groups[found.judging], looks)
        if smallest is not None:
            self.recorder.note(
                "info",
                f"Checkpoints are judged by {self.evaluator.sampled}. The smallest gain that these can show"
                f" is about {smallest:.2g} of the grader's units, with {looks} checkpoints.",
            )

    def _note_failed_grades(self, step: int, split: Split, groups: Sequence[Group]) -> None:
        grades = [grade for group in groups for grade in group.grades]
        share = failed_share(grades)
        if split != "greedy" and share > self.config.grade_failure_limit:
            messages = "; ".join(first_messages(grades))
            self.recorder.note(
                "warn", f"Step {step}: {share:.0%} of the validation grades failed: {messages}"
            )


class _Measured(NamedTuple):
    """Holds an evaluation: the checkpoint to be, its look, all comparisons so far, and its metrics."""

    checkpoint: Checkpoint
    look: Look
    judged: list[Judged]
    values: dict[str, float]
