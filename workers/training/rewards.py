"""Run the grader over groups. A failed grade is a gap, not a zero; a hung grader is a failed grade."""

from __future__ import annotations

import math
import queue
import threading
import time
import traceback
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from graders import Failure, FailureKind, Grade, Grader, Sample
from workers.training.errors import GradingFailed
from workers.training.types import Completion, Group

GRADE_THREADS = 8
GRADE_TIMEOUT_SECONDS = 300.0
"""Longer than any grader's own limit: reached only by a grader that hangs."""

SHOWN_MESSAGES = 3


class Rewards(NamedTuple):
    """Of a list of groups, both (P, G): grader units, and whether there is a reward at all."""

    values: Tensor
    graded: Tensor


def reward_of(grade: Grade) -> float | None:
    """The number the loss sees, or None for a gap.

    A completion that does not parse is the policy's own fault: it counts as 0 and is learnt from.
    """
    if grade.failure is not None and grade.failure.kind.is_completions_fault:
        return 0.0
    return grade.value


def rewards_of(groups: Sequence[Group]) -> Rewards:
    """Rewards of groups that all have G completions."""
    found = [[reward_of(grade) for grade in group.grades] for group in groups]
    values = torch.tensor([[0.0 if r is None else r for r in row] for row in found], dtype=torch.float64)
    return Rewards(values, torch.tensor([[r is not None for r in row] for row in found]))


def failed_share(grades: Iterable[Grade]) -> float:
    """Share of grades that failed by the fault of grader or data."""
    gaps = [reward_of(grade) is None for grade in grades]
    return sum(gaps) / len(gaps) if gaps else 0.0


class GradePool:
    """Grades on a few threads. A thread whose grader hangs is left behind and replaced."""

    def __init__(
        self, grader: Grader, *, threads: int = GRADE_THREADS, timeout: float = GRADE_TIMEOUT_SECONDS
    ) -> None:
        self._grader = grader
        self._timeout = timeout
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._threads = threads
        for _ in range(threads):
            self._start_thread()

    def grade(self, groups: Sequence[Group]) -> list[Group]:
        """The same groups with their grades. Never raises for a grader's fault, and always ends."""
        jobs = [[_Job(c, group.prompt.item) for c in group.completions] for group in groups]
        for row in jobs:
            for job in row:
                self._jobs.put(job)
        return [
            replace(group, grades=tuple(self._wait(job) for job in row))
            for group, row in zip(groups, jobs, strict=True)
        ]

    def close(self) -> None:
        """Let the threads end; ones that hang are daemons and do not keep the process."""
        for _ in range(self._threads):
            self._jobs.put(None)

    def _wait(self, job: _Job) -> Grade:
        # The clock of a job runs from its own start, so that a long queue is no timeout.
        while not job.done.wait(timeout=1.0):
            if job.started is not None and time.monotonic() - job.started > self._timeout:
                self._start_thread()
                message = f"The grader took longer than {self._timeout:.0f} seconds."
                return Grade(None, Failure(FailureKind.OTHER, message), seconds=self._timeout)
        assert job.grade is not None
        return job.grade

    def _start_thread(self) -> None:
        threading.Thread(target=self._work, name="grade", daemon=True).start()

    def _work(self) -> None:
        while (job := self._jobs.get()) is not None:
            job.started = time.monotonic()
            job.grade = _grade(self._grader, job.completion, job.item)
            job.done.set()
            if time.monotonic() - job.started > self._timeout:
                return  # another thread has taken this one's place


class _Job:
    def __init__(self, completion: Completion, item: Mapping[str, Any]) -> None:
        self.completion = completion
        self.item = item
        self.started: float | None = None
        self.grade: Grade | None = None
        self.done = threading.Event()


def _grade(grader: Grader, completion: Completion, item: Mapping[str, Any]) -> Grade:
    sample = Sample(output_text=completion.text, finish_reason=completion.finish_reason)
    try:
        grade = grader.grade(sample, item)
    except Exception:  # a grader must not raise; one that does must not end the run by itself
        return Grade(None, Failure(FailureKind.OTHER, traceback.format_exc(limit=-3)))
    if grade.value is not None and not math.isfinite(grade.value):
        return replace(
            grade, value=None, failure=Failure(FailureKind.OTHER, "The reward is not a finite number.")
        )
    return grade


def count_steps_over(steps_over: int, step: int, grades: Sequence[Grade], *, limit: float, steps: int) -> int:
    """How many steps in a row had more than `limit` of their grades failed, this one included.

    Raises `GradingFailed` with the first different messages once there are `steps` of them.
    """
    share = failed_share(grades)
    if share <= limit:
        return 0
    if steps_over + 1 >= steps:
        raise GradingFailed(
            f"At step {step}, {share:.0%} of the grades failed; more than {limit:.0%} failed"
            f" {steps_over + 1} steps in a row.",
            first_messages(grades),
        )
    return steps_over + 1


def first_messages(grades: Iterable[Grade]) -> tuple[str, ...]:
    """The first different failures by fault of grader or data, as sentences."""
    failures = [g.failure for g in grades if g.failure is not None and reward_of(g) is None]
    messages = dict.fromkeys(f"{failure.kind}: {failure.message}" for failure in failures)
    return tuple(messages)[:SHOWN_MESSAGES]
