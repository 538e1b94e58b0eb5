"""The grader is run over groups. A failed grade is a gap, not a zero; a hung grader is a failed grade."""

from __future__ import annotations

import queue
import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graders import Failure, FailureKind, Grade, Grader, Sample
from graders.grading import grade_safely
from workers.training.base.errors import GradingFailed
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


class PoolClosed(Exception):
    """Says that the run is over: grades are neither taken nor given any more."""


class GradeJob:
    """Holds one completion on its way through the pool."""

    def __init__(self, completion: Completion, item: Mapping[str, Any], draw: str = "") -> None:
        self.completion = completion
        self.item = item
        self.draw = draw
        self.started = 0.0
        self.seconds = 0.0
        """How long a thread was busy with it, once it has its grade."""
        self.grade: Grade | None = None


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
        self._least = least
        self._timeout = timeout
        self._threads = threads
        self._queue: queue.SimpleQueue[GradeJob | None] = queue.SimpleQueue()
        self._changed = threading.Condition()  # guards the two below and what threads write into jobs
        self._running: set[GradeJob] = set()
        self._is_closed = False
        for _ in range(threads):
            self._start_thread()

    def submit(self, completion: Completion, item: Mapping[str, Any], draw: str = "") -> GradeJob:
        """Has a completion graded as soon as a thread is free. Raises `PoolClosed`."""
        job = GradeJob(completion, item, draw)
        with self._changed:
            self._check_open()
            self._give_up_hung()
        self._queue.put(job)
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

    def grade(self, groups: Sequence[Group]) -> list[Group]:
        """Returns the same groups with their grades."""
        jobs = [[self.submit(c, group.prompt.item) for c in group.completions] for group in groups]
        return [
            replace(group, grades=tuple(self.wait(job) for job in row))
            for group, row in zip(groups, jobs, strict=True)
        ]

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

        The clock of a job runs from its own start, so that a long queue is no timeout.
        """
        now = time.monotonic()
        for job in [job for job in self._running if now - job.started > self._timeout]:
            self._running.remove(job)
            self._start_thread()
            message = f"The grader took longer than {self._timeout:.0f} seconds."
            self._finish(job, Grade(None, Failure(FailureKind.OTHER, message), seconds=self._timeout))

    def _finish(self, job: GradeJob, grade: Grade) -> None:
        job.seconds = time.monotonic() - job.started
        job.grade = grade
        self._changed.notify_all()

    def _start_thread(self) -> None:
        threading.Thread(target=self._work, name="grade", daemon=True).start()

    def _work(self) -> None:
        while (job := self._queue.get()) is not None and not self._is_closed:
            with self._changed:
                job.started = time.monotonic()
                self._running.add(job)
            grade = self._grade(job)
            with self._changed:
                if job not in self._running:
                    return  # given up: another thread has taken this one's place
                self._running.remove(job)
                self._finish(job, grade)

    def _grade(self, job: GradeJob) -> Grade:
        """Grades what can be graded: not an episode that broke off, nor a completion that is unparsed."""
        completion = job.completion
        if completion.lost:
            return Grade(None, Failure(completion.lost_by, completion.lost))
        if completion.parts is not None and completion.parts.fault is not None:
            failure = Failure(FailureKind.SAMPLE_PARSE, completion.parts.fault)
            return Grade(None, failure, least=self._least if self._least < 0 else None)
        return grade_safely(self._grader, sample_of(completion, job.draw), job.item)


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
