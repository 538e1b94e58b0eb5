"""How a step's rollouts come about: prompts are drawn, completions sampled and, while sampling goes on,
graded.

Two things may be added. Dynamic sampling (`sampling_rounds`) draws more prompts in place of those whose
completions all have the same reward: DAPO, Yu et al. 2025, arXiv:2503.14476, section 3.2. Asynchronous
sampling (`async_steps`) samples the next step beside the update of this one:
docs/decisions/0007-asynchronous-sampling.md. With `skip_flat_prompts` a step leaves out prompts that taught
nothing when they were visited last (`visits.py`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from torch import Tensor

from graders import Failure, FailureKind, Grade
from graders.types import add_usages
from methods import metrics as names
from methods.train_config import TrainConfig
from workers.training.advantages import groups_with_spread, least_spread
from workers.training.base.distributed import ALONE, World
from workers.training.base.randomness import shuffled
from workers.training.base.recorder import Recorder
from workers.training.base.types import Completion, Group, Prompt
from workers.training.episodes.episodes import Episodes
from workers.training.metrics import Clock, Timed
from workers.training.model.policy import Policy
from workers.training.rewards import Bases, GradeJob, GradePool, JobGroup, check_reached, no_base, rewards_of
from workers.training.sampling.backend import InProcess, RolloutBackend, SamplingInterrupted
from workers.training.sampling.background import Background
from workers.training.sampling.graphed.kept import release
from workers.training.sampling.rollout import Sampling
from workers.training.trust.rewards_seen import RewardsSeen
from workers.training.visits import Visit, Visits


@dataclass
class Rollouts:
    """Holds what one step has sampled, graded.

    Attributes:
        groups: all of it, as drawn; no row twice.
        trained: the groups that the update is given.
        rounds: how often prompts were drawn.
        seconds: how long sampling and grading took, whenever that was; empty after a resume.
    """

    groups: list[Group]
    trained: list[Group]
    rounds: int = 1
    seconds: Mapping[Timed, float] = field(default_factory=dict)


class Collector:
    """Collects each step's rollouts, a share in each process; every process is given them all.

    Every call of `collect` and of `ahead` talks to the other processes, in the same order everywhere. What is
    sampled in the background does not.
    """

    def __init__(
        self,
        policy: Policy,
        prompts: Sequence[Prompt],
        graders: GradePool,
        config: TrainConfig,
        recorder: Recorder,
        world: World = ALONE,
        *,
        is_permuted: bool = False,
        episodes: Episodes | None = None,
        backend: RolloutBackend | None = None,
    ) -> None:
        """`is_permuted` gives each completion the grade of another one, as in a control.

        `backend` samples the rollouts; None is the sampler in this process.
        """
        self.pending: Rollouts | None = None
        """Rollouts of the step after the last one updated, where they were sampled ahead."""
        self.visits = Visits().of(len(prompts))
        """What the steps collected so far have found of each prompt."""
        self.rewards_seen = RewardsSeen()
        """How large rewards have been so far."""
        self._policy = policy
        self._prompts = prompts
        self._graders = graders
        self._config = config
        self._recorder = recorder
        self._world = world
        self._is_permuted = is_permuted
        self._episodes = episodes
        self._backend = InProcess(policy) if backend is None else backend
        self._background = Background(policy.device) if config.async_steps else None

    def close(self) -> None:
        """Waits for the background to end, and gives back what was kept for sampling.

        Close the grade pool first: then it ends at its next completion.
        """
        if self._background is not None:
            self._background.close()
        release(self._policy.rollout_model)

    def resume(self, visits: Visits, rewards_seen: RewardsSeen, pending: Rollouts | None) -> None:
        """Goes on with what a training state holds. Visits and rewards seen are its own from here on."""
        self.visits = visits.of(len(self._prompts))
        self.rewards_seen = rewards_seen
        self.pending = pending

    def prompts(self, step: int) -> list[Prompt]:
        """Returns a step's prompts before dynamic sampling: those of its batch that are due.

        Each epoch has every row in one batch, shuffled anew. What is due follows from the steps collected
        before, whether this one is sampled ahead or not: the step before has its rewards by then.
        """
        size, n_rows = self._config.prompts_per_step, len(self._prompts)
        epoch = self._config.epoch_of(step, n_rows)
        start = (step - 1) % self._config.steps_per_epoch(n_rows) * size
        batch = shuffled(n_rows, "order", self._config.seed, epoch)[start : start + size]
        rows = self.visits.due(batch, epoch) if self._is_skipping else batch
        return [self._prompts[row] for row in rows]

    @property
    def _is_skipping(self) -> bool:
        """Whether prompts that teach nothing are left out."""
        config = self._config
        return config.skip_flat_prompts and (self.visits.have_differed or config.allow_flat_reward)

    def collect(self, step: int, clock: Clock) -> Rollouts:
        """Returns the rollouts of a step: sampled now by the weights as they are, or before by `ahead`."""
        rollouts, self.pending = self.pending, None
        if rollouts is None:
            timed = Clock(self._recorder)
            self._backend.follow(step - 1)
            rollouts = self._fill_up(step, self._sample(step, 1, self.prompts(step), timed), timed)
        if self._background is None:
            self._backend.rest()
        clock.add(rollouts.seconds)
        self.rewards_seen.note(grade.reward for group in rollouts.groups for grade in group.grades)
        self._note_visits(step, rollouts.groups)
        return rollouts

    @contextmanager
    def ahead(self, step: int, clock: Clock) -> Iterator[None]:
        """Samples a step by the weights as they are, with `async_steps`, beside the update made inside.

        On leaving, the sampling weights follow the update. What went wrong in the background is raised there.
        """
        sampled: Future[Rollouts | list[Group]] | None = None
        timed = Clock()
        if self._background is not None and step <= self._config.total_steps(len(self._prompts)):
            self._backend.follow(max(step - 2, 0))
            sampled = self._background.start(lambda: self._sample_ahead(step, timed))
        yield
        if sampled is not None:
            with clock.phase("sampling", "waiting"):
                found = sampled.result()
                self.pending = found if isinstance(found, Rollouts) else self._fill_up(step, found, timed)
        self._policy.sync_rollout()

    def metrics(self, rollouts: Rollouts) -> dict[str, float]:
        """Returns what dynamic sampling did; nothing without it."""
        if self._config.sampling_rounds == 1:
            return {}
        discarded = len(rollouts.groups) - len(rollouts.trained)
        return {names.SAMPLING_ROUNDS: float(rollouts.rounds), names.DISCARDED_GROUPS: float(discarded)}

    def _sample_ahead(self, step: int, clock: Clock) -> Rollouts | list[Group]:
        """Samples all of a step's rollouts; among several processes, what needs no word with the others."""
        first = self._sample(step, 1, self.prompts(step), clock)
        return self._fill_up(step, first, clock) if self._world.size == 1 else first

    def _sample(self, step: int, round_: int, prompts: Sequence[Prompt], clock: Clock) -> list[Group]:
        """Samples and grades this process's share of a round."""
        config = self._config
        key = ("train", config.seed, step) if round_ == 1 else ("train", config.seed, step, round_)
        sampling = Sampling(
            samples=config.group_size,
            max_tokens=config.max_completion_tokens,
            temperature=config.temperature,
            key=key,
            stop=config.stop,
            grammar=self._policy.grammar,
            reader=self._policy.reader,
            thinking_tokens=config.max_thinking_tokens,
        )
        mine = self._world.slice(prompts)
        return sample_and_grade(
            self._policy, mine, sampling, self._graders, clock, self._episodes, backend=self._backend
        )

    def _fill_up(self, step: int, mine: list[Group], clock: Clock) -> Rollouts:
        """Gathers the first round, then draws again while groups with spread are missing."""
        groups = self._graded(step, 1, self._world.merge(mine))
        rounds = 1
        while rounds < self._config.sampling_rounds and (
            extra := self._extra_prompts(step, rounds + 1, groups)
        ):
            rounds += 1
            more = self._world.merge(self._sample(step, rounds, extra, clock))
            groups += self._graded(step, rounds, more)
        trained = self._to_train(groups)
        if not trained and self._config.beta > 0:
            trained = groups  # for the KL term alone
        return Rollouts(groups, trained, rounds, clock.seconds)

    def _graded(self, step: int, round_: int, groups: list[Group]) -> list[Group]:
        """Returns the groups as they are, or in a control with the round's grades dealt out anew.

        Raises `JudgeLost`.
        """
        check_reached(groups)
        if not self._is_permuted:
            return groups
        return permuted(groups, "permuted", self._config.seed, step, round_)

    def _extra_prompts(self, step: int, round_: int, groups: Sequence[Group]) -> list[Prompt]:
        """Returns as many prompts as groups with spread are missing, none that the step has had.

        None that is not due either: it would only be found flat again.
        """
        missing = self._config.prompts_per_step - len(self._to_train(groups))
        drawn = {group.prompt.row for group in groups}
        order = shuffled(len(self._prompts), "extra", self._config.seed, step, round_)
        if self._is_skipping:
            epoch = self._config.epoch_of(step, len(self._prompts))
            order = [row for row in order if self.visits.is_due(row, epoch)]
        return [self._prompts[row] for row in order if row not in drawn][:missing]

    def _note_visits(self, step: int, groups: Sequence[Group]) -> None:
        """Takes note of what a step has found of each prompt."""
        values, graded = rewards_of(groups)
        has_spread = self._has_spread(groups)
        self.visits.have_differed |= bool(has_spread.any())
        is_flat = ~has_spread & (graded.sum(1) >= 2)
        is_right = (values >= self.rewards_seen.scale(self._config).right_from) | ~graded
        is_solved = is_flat & is_right.all(1)
        rows = [group.prompt.row for group in groups]
        found = zip(rows, is_flat.tolist(), is_solved.tolist(), strict=True)
        self.visits.note(self._config.epoch_of(step, len(self._prompts)), [Visit(*each) for each in found])

    def _to_train(self, groups: Sequence[Group]) -> list[Group]:
        """Returns the groups to train on: with dynamic sampling those with spread.

        The others shall not count in means over tokens either.
        """
        if self._config.sampling_rounds == 1:
            return list(groups)
        has_spread = self._has_spread(groups).tolist()
        return [group for group, spreads in zip(groups, has_spread, strict=True) if spreads]

    def _has_spread(self, groups: Sequence[Group]) -> Tensor:
        """Says of which of P groups the completions differ in reward, (P,) bool."""
        rewards = rewards_of(groups)
        return groups_with_spread(*rewards, least_spread(self._config, rewards, self.rewards_seen.largest))


def permuted(groups: Sequence[Group], *key: int | str) -> list[Group]:
    """Returns the groups with all their grades dealt out anew, in an order that follows from the key."""
    grades = [grade for group in groups for grade in group.grades]
    dealt = iter(shuffled(len(grades), *key))
    return [replace(group, grades=tuple(grades[next(dealt)] for _ in group.grades)) for group in groups]


def sample_and_grade(
    policy: Policy,
    prompts: Sequence[Prompt],
    sampling: Sampling,
    graders: GradePool,
    clock: Clock,
    episodes: Episodes | None = None,
    base: Bases = no_base,
    backend: RolloutBackend | None = None,
) -> list[Group]:
    """Samples groups, and grades each completion as soon as it has ended: only the last are waited for.

    A grader of groups grades each group as its last completion ends, against what `base` has for the row.
    `backend` samples; by default that is the sampler in this process. Where its server is away everything is
    sampled and graded again; where it was waited for in vain, all grades say so (`Grade.lost`).
    """
    if not prompts:
        return []
    backend = InProcess(policy) if backend is None else backend
    while True:
        try:
            return _sample_and_grade(prompts, sampling, graders, clock, episodes, base, backend)
        except SamplingInterrupted:
            with clock.phase("sampling", "sampling"):
                lost = backend.recover(lambda: clock.alive("sampling"))
            if lost:
                failed = Grade(None, Failure(FailureKind.OTHER, lost, lost))
                return [Group(prompt, (), (failed,)) for prompt in prompts]


def _sample_and_grade(
    prompts: Sequence[Prompt],
    sampling: Sampling,
    graders: GradePool,
    clock: Clock,
    episodes: Episodes | None,
    base: Bases,
    backend: RolloutBackend,
) -> list[Group]:
    jobs: dict[tuple[int, int], GradeJob] = {}
    under_way = [
        JobGroup(prompt.item, sampling.samples, draw_of(sampling, prompt), base(prompt.row))
        for prompt in prompts
    ]

    def grade(i: int, sample: int, completion: Completion) -> None:
        clock.alive("sampling")
        jobs[i, sample] = graders.submit(completion, under_way[i], sample)

    turns = None if episodes is None else episodes.play(prompts, lambda: clock.alive("sampling"))
    with clock.phase("sampling", "sampling"):
        try:
            groups = backend.sample(prompts, sampling, grade, turns)
        except SamplingInterrupted:
            if turns is not None:
                turns.drop()
            raise
    with clock.phase("grading", "grading"):
        graded = []
        for i, group in enumerate(groups):
            grades = []
            for j, completion in enumerate(group.completions):
                grades.append(_with_usage(graders.wait(jobs[i, j]), completion))
                clock.alive("grading")  # judges may take longer than a phase may take without any progress
            graded.append(replace(group, grades=tuple(grades)))
    clock.add({"grading_busy": sum(job.seconds for job in jobs.values())})
    return graded


def draw_of(sampling: Sampling, prompt: Prompt) -> str:
    """Returns the name of a prompt's draw for graders; none outside of training (`Sample.draw`)."""
    return "/".join(map(str, (*sampling.key, prompt.row))) if sampling.key[0] == "train" else ""


def _with_usage(grade: Grade, completion: Completion) -> Grade:
    """Returns the grade with what the completion's environment has asked models for, beside the grader."""
    if not completion.usage:
        return grade
    return replace(grade, usage=add_usages([grade.usage, completion.usage]))
