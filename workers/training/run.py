"""What the loop works on, and what happens around a step: measuring, saving, resuming, giving up."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from graders import Grader
from methods import metrics as names
from methods.rows import Row
from methods.train_config import TrainConfig
from workers.training.base.distributed import ALONE, World
from workers.training.base.errors import JudgeLost, ModelInvalid
from workers.training.base.recorder import Recorder
from workers.training.base.types import Checkpoint, Group
from workers.training.checkpoints import deliverable
from workers.training.collector import Collector
from workers.training.endings import Endings
from workers.training.episodes.environment import Environment
from workers.training.episodes.episodes import Episodes
from workers.training.evaluator import Evaluator
from workers.training.good_copy import GoodCopy
from workers.training.keeper import Keeper
from workers.training.measures.drift import Drift, DriftMeter
from workers.training.measures.measuring import Measured, Measuring, count_spent
from workers.training.measures.pass_plan import PassPlanner
from workers.training.metrics import Clock, total_usage_metrics
from workers.training.model.adapter import what_is_adapted
from workers.training.model.delivered import decodes_otherwise
from workers.training.model.policy import Policy
from workers.training.passes.path import why_general
from workers.training.prompts import make_prompts
from workers.training.recorders import Silent
from workers.training.result import RunResult
from workers.training.rewards import (
    GradePool,
    count_steps_over,
    failed_share,
    nothing_graded,
)
from workers.training.sampling.backend import OpenRollouts, open_in_process
from workers.training.sampling.general_decoder import is_uncached
from workers.training.state import Progress, fingerprint, load_pending
from workers.training.trust.arm import ONLY, Arm, Base
from workers.training.trust.ending import GUARD
from workers.training.trust.gold import gold_outcome
from workers.training.trust.selection import judge
from workers.training.trust.verdict import verdict
from workers.training.update import UpdateStats, make_optimizer
from workers.training.watch import Watch

LOST = (
    "The job pauses, since it cannot go on without a server. {lost}. Nothing of the step under way was"
    " trained on. See that it answers, then resume the job: it goes on as if nothing had been."
)
"""What is said where a server that grades or samples was waited for in vain; `lost` names it."""
UNCACHED = " Its cache is not exact, so sampling reads the whole sequence for every token, which is slow."


def _episodes(environment: Environment | None, config: TrainConfig, policy: Policy) -> Episodes | None:
    """Returns what plays the run's episodes; None where completions have one turn.

    Raises `ModelInvalid` where the config names what nobody here replies for, or whose calls cannot be read.
    """
    if environment is not None:
        return Episodes(environment, policy.reader, config, policy)
    if named := [*config.tools, *filter(None, [config.environment])]:
        raise ModelInvalid(f"The config names {', '.join(named)}, and nobody here replies for them.")
    return None


def _starts_anew(step: int) -> str:
    return (
        f"The run goes on at step {step}, whose episodes begin anew, with new trace ids. If it was broken off"
        " while that step was sampled, tools are called again for it: a trace id is never used twice."
    )


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
        gold: Grader | None = None,
        arm: Arm = ONLY,
        environment: Environment | None = None,
        rollouts: OpenRollouts | None = None,
        most_pass_tokens: int | None = None,
    ) -> None:
        """`canary_rows` are the user's own texts for the canary; None stands for those of the package.

        `gold` is a grader that is only measured by; `arm` says what the run is of a job with several;
        `environment` replies to what the policy writes, where completions have several turns; `rollouts`
        opens what samples, where that is not the sampler in this process; `most_pass_tokens` bounds passes
        where larger ones ran out of memory before.
        """
        self.recorder: Recorder = recorder if world.is_main else Silent()
        self.recorder.phase("loading")
        self.config = config
        self.world = world
        self.arm = arm
        self.policy = Policy.load(config, world)
        tokenizer, context = self.policy.tokenizer, self.policy.context
        vocabulary = self.policy.vocabulary
        self.train_prompts = make_prompts(train_rows, tokenizer, context, "training", vocabulary)
        self.valid_prompts = make_prompts(valid_rows, tokenizer, context, "validation", vocabulary)
        self.optimizer = make_optimizer(self.policy, config)
        self.total_steps = config.total_steps(len(train_rows))
        self.until = self.total_steps if arm.until is None else arm.until
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
        self.keeper.is_alone = arm.is_alone
        self.drift = DriftMeter(
            self.policy, self.valid_prompts or self.train_prompts, config, world, canary_rows
        )
        self.graders = GradePool(
            grader,
            threads=config.grade_concurrency,
            timeout=config.grade_seconds,
            least=config.reward_range[0] if config.reward_range else 0.0,
        )
        self.episodes = _episodes(environment, config, self.policy)
        name = "" if arm.is_alone else run_dir.name
        self.backend = (rollouts or open_in_process)(self.policy, config, world, self.recorder, name)
        self.collector = Collector(
            self.policy,
            self.train_prompts,
            self.graders,
            config,
            self.recorder,
            world,
            is_permuted=arm.is_control,
            episodes=self.episodes,
            backend=self.backend,
        )
        self.evaluator = Evaluator(
            self.policy, self.valid_prompts, self.train_prompts, self.graders, config, world, self.episodes
        )
        self.measuring = Measuring(
            self.keeper, self.evaluator, self.drift, config, self.recorder, world, arm, gold
        )
        self.endings = Endings(config, self.total_steps, self.recorder, world, arm.others)
        self.watch = Watch(self.keeper, config, self.recorder)
        if config.guard == "act":
            self.keeper.good = GoodCopy(self.policy, self.optimizer, world)
        state = self.keeper.resume()
        longest = max(len(prompt.tokens) for prompt in (*self.train_prompts, *self.valid_prompts))
        PassPlanner(self.policy, config, longest, self.recorder, world).settle(
            self.progress.passes, self.optimizer, most_pass_tokens
        )
        pending = load_pending(state, self.train_prompts) if state is not None else None
        self.collector.resume(self.progress.visits, self.progress.rewards_seen, pending)
        if self.episodes is not None and state is not None and pending is None:
            self.recorder.note("info", _starts_anew(self.progress.step + 1))
        n_rows = self.evaluator.sampled.compared  # 0.1.0 judged by fewer than five rows too
        self.progress.looks = [look for look in self.progress.looks if len(look.rows) == n_rows]
        self.progress.grant(arm.spent_before)

    @property
    def progress(self) -> Progress:
        """Where the run is."""
        return self.keeper.progress

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.graders.close()
        self.measuring.close()
        if self.episodes is not None:
            self.episodes.close()
        self.collector.close()
        self.backend.close()

    def epoch(self, step: int) -> int:
        """Returns the pass over the data that a step belongs to, from 1; 0 for step 0."""
        return self.config.epoch_of(step, len(self.train_prompts))

    def steps(self) -> Iterator[int]:
        """Yields the steps that are left, until the last one or until something ends the run early.

        Those of an arm are left until the end of its rung.
        """
        while self.progress.step < self.until and self.progress.ended is None:
            yield self.progress.step + 1

    def check_grades(self, step: int, groups: Sequence[Group]) -> None:
        """Counts what was spent. Raises `GradingFailed` after too many steps with too many failed grades.

        That is also at the end of a run without a single grade. Raises `FlatReward` where the first
        completions teach nothing.
        """
        grades = [grade for group in groups for grade in group.grades]
        count_spent(self.progress, groups)
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

    def check_update(self, step: int, stats: UpdateStats) -> None:
        """Counts tokens, and looks at what the update measured. Raises `NonFinite`."""
        self.progress.trained_tokens += stats.trained_tokens
        self.watch.updated(step, stats)

    def measure_base(self) -> None:
        """Validates and saves the untouched base (step 0), unless a state was resumed.

        An arm of a job takes over what the first one has found.
        """
        if self.progress.kept or self.progress.looks:
            return
        if self.arm.base is not None:
            self._take_over(self.arm.base)
            return
        with self.telling_of_lost_judges():
            self.finish(0, {}, Clock(self.recorder))
        self._tell_of_the_model()

    @contextmanager
    def telling_of_lost_judges(self) -> Iterator[None]:
        """Says why the run pauses where a server that grades was waited for in vain (`JudgeLost`)."""
        try:
            yield
        except JudgeLost as lost:
            self.recorder.pausing(LOST.format(lost=str(lost).rstrip(".")))
            raise

    def _tell_of_the_model(self) -> None:
        """Tells what a person would not expect: a path that takes more time, layers without an adapter."""
        longest = max(len(prompt.tokens) for prompt in (*self.train_prompts, *self.valid_prompts))
        reach = min(longest + self.config.max_completion_tokens, self.policy.context)
        if (reason := why_general(self.policy.model, reach)) is not None:
            slow = UNCACHED if is_uncached(self.policy.rollout_model) else ""
            self.recorder.note(
                "info", f"Path: general, because {reason}{slow} It is right, and takes more time and memory."
            )
        if (said := what_is_adapted(self.policy.adapted)) is not None:
            self.recorder.note(*said)
        if (warning := decodes_otherwise(self.policy.folder)) is not None:
            self.recorder.note("warn", warning)

    def _take_over(self, base: Base) -> None:
        self.progress.looks = [base.look]
        self.progress.rewards_seen.note(base.look.rows)
        self.progress.gold = list(base.gold)
        self.progress.base_answers = base.answers
        self.progress.kept = [] if self.arm.is_control else [base.checkpoint]
        self.watch.decide(0, {names.KL_PROBE_MEAN: base.look.kl}, base.look.rows)
        self.watch.carry_out(0, None)

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
            self.measuring.note(measured)
            values |= measured.values
            budget = budget or self.endings.spent_budget(self.progress, clock)
        elif is_called:
            with clock.phase("validating", "eval"):
                values |= Drift(self.drift.measure_kl(), None).metrics()
        rows = None if measured is None else measured.look.rows
        action, guarded = self.watch.decide(step, values, rows, is_last=ends)
        gives_up = action is not None and action.gives_up_weights
        if measured is not None and gives_up:
            self.progress.looks[-1] = measured.look._replace(is_given_up=True)
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
        if measured is not None and not gives_up and not self.arm.is_control:
            self.keeper.keep_checkpoint(measured.checkpoint, measured.judged)
        if self.watch.carry_out(step, action):
            self.collector.pending = None  # sampled by the policy that was given up
        if is_checkpoint or step % self.config.save_state_every == 0 or self.progress.ended:
            self.save()

    def result(self) -> RunResult:
        """Returns what is to be delivered, and what is said of it."""
        looks, kept = self.progress.looks, deliverable(self.progress.kept, self.config)
        seed = self.config.measuring_seed
        found = verdict(looks, kept, self.evaluator.sampled, seed)
        return RunResult(
            best=kept[found.step],
            steps=self.progress.step,
            trained_tokens=self.progress.trained_tokens,
            verdict=found,
            judged=judge(looks, seed),
            gold=gold_outcome(self.progress.gold, found.step, seed),
        )

    def save(self) -> None:
        """Saves the training state, unless that of this step is saved; then removes what is not needed."""
        self.keeper.save(self.collector.pending)

    def snapshot(self) -> None:
        """Saves the state, and a checkpoint of it unless there is one.

        It is no candidate for delivery, so that a run which pauses has the history of one that does not.
        """

        if self.arm.is_control:
            self.save()
            return

        def measured() -> Checkpoint:
            return self._measure(self.progress.step, Clock(self.recorder)).checkpoint

        try:
            self.keeper.snapshot(measured, self.collector.pending)
        except JudgeLost as lost:
            self.recorder.note("warn", f"The pause leaves no checkpoint of its own. {str(lost).rstrip('.')}.")

    def _measure(self, step: int, clock: Clock) -> Measured:
        self.world.check_same(self.policy.trained().values())
        return self.measuring.measure(step, self.epoch(step), clock)
