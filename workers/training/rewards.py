"""The grader is run over groups. A failed grade is a gap, not a zero; a hung grader is a failed grade."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graders import Failure, FailureKind, Grade, Grader, Sample
from graders.grading import grade_group_safely
from graders.types import Base, GroupGrader
from workers.training.base.errors import GradingFailed, JudgeLost
from workers.training.base.types import Completion, Group

GRADE_THREADS = 8
"""Graders called at the same time where a run does not say. Chosen, not measured; a run sets
`grade_concurrency`.
"""
GRADE_TIMEOUT_SECONDS = 300.0
"""How long a grading may take before it counts as hung, where a run does not say. Chosen, not measured:
longer than the graders' own limits; a run sets `grade_seconds`.
"""

SHOWN_MESSAGES = 3
"""How many different failures a person is shown. Chosen, not measured."""
SHOWN_CHARACTERS = 4000
"""How much of each message is shown, chosen, not measured; its end, since that says what was wrong in a
traceback.
"""


class Rewards(NamedTuple):
    """Holds the rewards of a list of groups, (P, G), in grader units, and whether there are any, (P, G)."""

    values: Tensor
    graded: Tensor


def rewards_of(groups: Sequence[Group]) -> Rewards:
    """Returns the rewards, (P, G), of groups that all have G completions."""
    found = [[grade.reward for grade in group.grades] for group in groups]
    values = torch.tensor([[0.0 if r is None else r for r in row] for row in found], dtype=torch.float64)
    return Rewards(values, torch.tensor([[r is not None for r in row] for row in found]))


def failed_share(grades: Iterable[Grade]) -> float:
    """Returns the share of grades that failed by the fault of grader or data."""
    gaps = [grade.reward is None for grade in grades]
    return sum(gaps) / len(gaps) if gaps else 0.0


Bases = Callable[[int], Base | None]
"""Returns what the base model wrote for the prompt of a row, as graders see it; None where completions are
compared with each other only."""


def no_base(_row: int) -> Base | None:
    """Returns None: completions are compared with each other only."""
    return None


def check_reached(groups: Iterable[Group]) -> None:
    """Raises `JudgeLost` where a grade is missing because whoever gives it was waited for in vain."""
    lost = next((grade.lost for group in groups for grade in group.grades if grade.lost), "")
    if lost:
        raise JudgeLost(lost)


class PoolClosed(Exception):
    """Says that the run is over: grades are neither taken nor given any more."""


class GradeJob:
    """Holds one completion on its way through the pool."""

    def __init__(self, completion: Completion, item: Mapping[str, Any], draw: str = "") -> None:
        self.completion = completion
        self.item = item
        self.draw = draw
        self.seconds = 0.0
        """How long a thread was busy with it, once it has its grade; with a group, its share of that."""
        self.grade: Grade | None = None


class JobGroup:
    """Holds the completions of one prompt on their way through the pool, by their places in the group.

    A grader of groups is asked once all are there; every other grader as each one comes.
    """

    def __init__(self, item: Mapping[str, Any], size: int, draw: str = "", base: Base | None = None) -> None:
        """`base` is what the base model wrote for this prompt, for graders of groups (`GroupGrader`)."""
        self.item = item
        self.draw = draw
        self.base = base
        self.jobs: list[GradeJob | None] = [None] * size


class _Task:
    """Holds what one thread grades at a time: a completion, or all completions of a group."""

    def __init__(self, jobs: Sequence[GradeJob], base: Base | None = None) -> None:
        self.jobs = jobs
        self.base = base
        self.started = 0.0


class GradePool:
    """Grades on a few threads. A thread whose grader hangs is left behind and replaced."""

    def __init__(
        self,
        grader: Grader,
        *,
        threads: int = GRADE_THREADS,
        timeout: float = GRADE_TIMEOUT_SECONDS,
        least: float = 0.0,
    ) -> None:
        """`least` is what the grader gives at least, where that is known: so much is unparsed text worth."""
        self._grader = grader
        self.is_of_groups = isinstance(grader, GroupGrader)
        """Whether the grader compares the completions of a group with each other."""
        self._least = least
        self._timeout = timeout
        self._threads = threads
        self._queue: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
        self._changed = threading.Condition()  # guards the two below and what threads write into jobs
        self._running: set[_Task] = set()
        self._is_closed = False
        for _ in range(threads):
            self._start_thread()

    def submit(self, completion: Completion, group: JobGroup, place: int) -> GradeJob:
        """Has a completion of a group graded as soon as a thread is free.

        A grader of groups begins with the last one that comes. Raises `PoolClosed`.
        """
        job = GradeJob(completion, group.item, group.draw)
        with self._changed:
            self._check_open()
            self._give_up_hung()
        if not self.is_of_groups:
            self._queue.put(_Task([job]))
            return job
        group.jobs[place] = job
        there = [each for each in group.jobs if each is not None]
        if len(there) == len(group.jobs):
            self._queue.put(_Task(there, group.base))
        return job

    def wait(self, job: GradeJob) -> Grade:
        """Returns the grade. It never raises for a grader's fault, and always ends. Raises `PoolClosed`."""
        with self._changed:
            while True:
                self._check_open()
                self._give_up_hung()
                if job.grade is not None:
                    return job.grade
                self._changed.wait(timeout=min(1.0, self._timeout))

    def grade(self, groups: Sequence[Group], base: Bases = no_base) -> list[Group]:
        """Returns the same groups with their grades; `base` says what graders of groups compare with."""
        jobs = [self._submit_all(group, base(group.prompt.row)) for group in groups]
        return [
            replace(group, grades=tuple(self.wait(job) for job in row))
            for group, row in zip(groups, jobs, strict=True)
        ]

    def _submit_all(self, group: Group, base: Base | None) -> list[GradeJob]:
        of_group = JobGroup(group.prompt.item, len(group.completions), base=base)
        return [self.submit(completion, of_group, i) for i, completion in enumerate(group.completions)]

    def close(self) -> None:
        """Lets the threads end, and whoever waits.

        Those that hang are daemons and do not keep the process.
        """
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()
        for _ in range(self._threads):
            self._queue.put(None)

    def _check_open(self) -> None:
        if self._is_closed:
            raise PoolClosed

    def _give_up_hung(self) -> None:
        """Fails what has run too long, and replaces its thread.

        The clock of a task runs from its own start, so that a long queue is no timeout.
        """
        now = time.monotonic()
        for task in [task for task in self._running if now - task.started > self._timeout]:
            self._running.remove(task)
            self._start_thread()
            message = f"The grader took longer than {self._timeout:.0f} seconds."
            seconds = self._timeout / len(task.jobs)
            failed = Grade(None, Failure(FailureKind.OTHER, message), seconds=seconds)
            self._finish(task, [failed] * len(task.jobs))

    def _finish(self, task: _Task, grades: Sequence[Grade]) -> None:
        seconds = time.monotonic() - task.started
        for job, grade in zip(task.jobs, grades, strict=True):
            job.seconds = seconds / len(task.jobs)
            job.grade = grade
        self._changed.notify_all()

    def _start_thread(self) -> None:
        threading.Thread(target=self._work, name="grade", daemon=True).start()

    def _work(self) -> None:
        while (task := self._queue.get()) is not None and not self._is_closed:
            with self._changed:
                task.started = time.monotonic()
                self._running.add(task)
            grades = self._grade(task)
            with self._changed:
                if task not in self._running:
                    return  # given up: another thread has taken this one's place
                self._running.remove(task)
                self._finish(task, grades)

    def _grade(self, task: _Task) -> list[Grade]:
        """Grades what can be graded: not an episode that broke off, nor a completion that is unparsed."""
        known = [self._without_grader(job.completion) for job in task.jobs]
        places = [place for place, grade in enumerate(known) if grade is None]
        samples = [sample_of(task.jobs[place].completion, task.jobs[place].draw) for place in places]
        base = None if task.base is None else _in_places(task.base, places)
        found = iter(grade_group_safely(self._grader, samples, task.jobs[0].item, base))
        return [next(found) if grade is None else grade for grade in known]

    def _without_grader(self, completion: Completion) -> Grade | None:
        """Returns the grade of a completion that no grader is shown; None for every other."""
        if is_shown(completion):
            return None
        if completion.lost:
            return Grade(None, Failure(completion.lost_by, completion.lost, completion.waited_for))
        failure = Failure(FailureKind.SAMPLE_PARSE, (completion.parts and completion.parts.fault) or "")
        return Grade(None, failure, least=self._least if self._least < 0 else None)


def is_shown(completion: Completion) -> bool:
    """Tells whether graders are shown a completion: it is no episode that broke off, and not unparsed."""
    return not completion.lost and (completion.parts is None or completion.parts.fault is None)


def _in_places(base: Base, places: Sequence[int]) -> list[Sample | None]:
    """Returns what the base wrote in some places of a group, then what it wrote in the others."""
    first = [base[place] if place < len(base) else None for place in places]
    return first + [sample for place, sample in enumerate(base) if place not in places]


def sample_of(completion: Completion, draw: str = "") -> Sample:
    """Returns a completion as graders see it; of an episode, what its last turn answered and called."""
    parts = completion.parts
    if parts is None:
        return Sample(
            completion.text, completion.finish_reason, output_tokens=completion.n_sampled, draw=draw
        )
    calls = completion.turns[-1].calls if completion.turns else parts.chat_calls
    return Sample(
        parts.answer,
        completion.finish_reason,
        calls,
        output_tokens=completion.n_sampled,
        output_thoughts=parts.thoughts,
        raw_text=completion.text,
        messages=[message for turn in completion.turns for message in turn.chat_messages],
        trace_id=completion.trace_id,
        environment_reward=completion.environment_reward,
        draw=draw,
    )


def count_steps_over(steps_over: int, step: int, grades: Sequence[Grade], *, limit: float, steps: int) -> int:
    """Returns how many steps in a row had more than `limit` of their grades failed, this one included.

    Raises `GradingFailed` with the first different messages once there are `steps` of them: of a run that is
    shorter than its limit, all its steps.
    """
    if failed_share(grades) <= limit:
        return 0
    if steps_over + 1 >= steps:
        raise GradingFailed(_gave_up(steps_over + 1, step, grades, limit), first_messages(grades))
    return steps_over + 1


def nothing_graded(last: Sequence[Grade]) -> GradingFailed:
    """Returns the error of a run in which no completion has got a grade, whatever share may fail.

    `last` are the grades of its last step.
    """
    message = "Grading failed: no completion of the run got a grade. The first different failures:"
    return GradingFailed(message, first_messages(last))


def _gave_up(steps_over: int, step: int, grades: Sequence[Grade], limit: float) -> str:
    kinds = Counter(g.failure.kind.value for g in grades if g.failure is not None and g.reward is None)
    counted = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
    steps = f"step {step}" if steps_over == 1 else f"each of the {steps_over} steps up to step {step}"
    return (
        f"Grading failed too often: at {steps}, more than {limit:.0%} of the grades failed"
        f" (grade_failure_limit). At step {step} it was {kinds.total()} of {len(grades)}: {counted}."
        " The first different failures:"
    )


def first_messages(grades: Iterable[Grade]) -> tuple[str, ...]:
    """Returns the first different failures by fault of grader or data, as sentences."""
    failures = [g.failure for g in grades if g.failure is not None and g.reward is None]
    messages = dict.fromkeys(f"{failure.kind}: {failure.message[-SHOWN_CHARACTERS:]}" for failure in failures)
    return tuple(messages)[:SHOWN_MESSAGES]
