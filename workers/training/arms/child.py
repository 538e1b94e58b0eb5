"""Trains one arm in a process of its own, and tells the one that keeps the job what a recorder is told.

Every call waits until the other side has done it: what is stored is in order, and a process that is killed
leaves nothing half told.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Literal

from workers.training.arms.messages import (
    JUDGED_BY,
    REMARK,
    SHALL_PAUSE,
    SHALL_STOP,
    SPENT,
    TASK,
    Ended,
    Task,
)
from workers.training.arms.turns import Advance
from workers.training.base.determinism import deterministic
from workers.training.base.distributed import World
from workers.training.base.errors import JudgeLost, RunCancelled, RunFailed, RunPaused
from workers.training.base.recorder import Phase
from workers.training.base.types import Action, Checkpoint, Group, Split
from workers.training.run import Run


def train_for(connection: Connection, advance: Advance) -> None:
    """Trains the arm that the other end of a connection has a task for, and says how that has ended.

    Raises errors that are none of the engine's.
    """
    link = Link(connection)
    try:
        ended = _train(link.call(TASK), link, advance)
    except RunFailed as failure:  # before there was a run
        ended = Ended("failed", failure=failure)
    except Exception as problem:
        link.end(Ended("crashed", words=f"{type(problem).__name__}: {problem}"))
        raise
    link.end(ended)


def _train(task: Task, link: Link, advance: Advance) -> Ended:
    with deterministic(task.config.deterministic, World().device(task.config.device)):
        return _train_arm(task, link, advance)


def _train_arm(task: Task, link: Link, advance: Advance) -> Ended:
    grader, gold = task.graders(lambda message: link.call(REMARK, message))
    arm = replace(task.arm, others=lambda own: link.call(SPENT, own))
    rows = (task.train_rows, task.valid_rows)
    with Run(
        task.config,
        *rows,
        grader,
        Told(link),
        task.folder,
        canary_rows=task.canary_rows,
        gold=gold,
        arm=arm,
        environment=task.environment and task.environment(),
        rollouts=task.rollouts,
    ) as run:
        try:
            link.call(JUDGED_BY, run.evaluator.sampled)
            run.measure_base()
            advance(run, lambda: link.call(SHALL_STOP), lambda: link.call(SHALL_PAUSE))
            if run.endings.is_pausing:
                run.snapshot()
                raise RunPaused(run.progress.step)
        except JudgeLost:
            return Ended("paused")  # what it has saved is known; the step under way is not done
        except RunCancelled:
            return Ended("stopped", run.progress)
        except RunPaused:
            return Ended("paused", run.progress)
        except RunFailed as failure:
            return Ended("failed", run.progress, failure)
        return Ended("done", run.progress)


class Link:
    """Asks the process that keeps the job, from any thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def call(self, name: str, *args: Any) -> Any:
        """Returns the answer. Raises `EOFError` if the other process is gone."""
        with self._lock:
            self._connection.send((name, args))
            return self._connection.recv()

    def end(self, ended: Ended) -> None:
        """Says the last word."""
        with self._lock:
            self._connection.send(ended)


class Told:
    """Is the recorder of an arm in a process of its own: all goes over the link."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def phase(self, phase: Phase) -> None:
        """Tells it."""
        self._link.call("phase", phase)

    def metrics(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        """Tells it."""
        self._link.call("metrics", step, epoch, dict(values))

    def rollouts(self, split: Split, step: int, epoch: int, groups: Sequence[Group]) -> None:
        """Tells it."""
        self._link.call("rollouts", split, step, epoch, list(groups))

    def checkpoint(self, saved: Checkpoint) -> None:
        """Tells it."""
        self._link.call("checkpoint", saved)

    def snapshot(self, saved: Checkpoint) -> None:
        """Tells it."""
        self._link.call("snapshot", saved)

    def dropped(self, step: int) -> None:
        """Tells it."""
        self._link.call("dropped", step)

    def state(self, step: int, folder: Path) -> None:
        """Tells it."""
        self._link.call("state", step, folder)

    def pausing(self, message: str) -> None:
        """Tells it."""
        self._link.call("pausing", message)

    def action(self, action: Action) -> None:
        """Tells it."""
        self._link.call("action", action)

    def note(self, level: Literal["info", "warn"], message: str) -> None:
        """Tells it."""
        self._link.call("note", level, message)
