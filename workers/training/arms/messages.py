"""What a process that trains an arm and the one that keeps the job say to each other.

The process of the arm asks, and waits for the answer: a call is a name and its arguments. Most are calls of a
recorder; the others are named here. Its last message is an `Ended`, which is not answered.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from graders import Grader
from methods.rows import Row
from methods.train_config import TrainConfig
from workers.training.base.errors import RunFailed
from workers.training.episodes.environment import Environment
from workers.training.sampling.backend import OpenRollouts
from workers.training.state import Progress
from workers.training.trust.arm import Arm

TASK = "task"
"""Asks for the `Task`; the first call."""
SHALL_STOP = "shall_stop"
SHALL_PAUSE = "shall_pause"
SPENT = "spent"
"""Tells the `Totals` of the arm; the answer is those of the others."""
JUDGED_BY = "judged_by"
"""Tells the `Sampled` by which checkpoints are judged."""

REMARK = "remark"
"""Tells a warning of the job, whichever arm it comes from."""

Graders = Callable[[Callable[[str], None]], tuple[Grader, Grader | None]]
"""Makes the grader and the gold grader in the process that calls it, given what takes their remarks.

It can be pickled, as they cannot.
"""


MakeEnvironment = Callable[[], Environment]
"""Makes the environment in the process that calls it. It can be pickled, as the environment cannot."""


class Task(NamedTuple):
    """Holds what a process needs to train one arm."""

    config: TrainConfig
    train_rows: Sequence[Row]
    valid_rows: Sequence[Row]
    canary_rows: Sequence[Row] | None
    graders: Graders
    folder: Path
    arm: Arm
    environment: MakeEnvironment | None = None
    rollouts: OpenRollouts | None = None


class Ended(NamedTuple):
    """Says how the training of an arm has ended for now.

    Attributes:
        how: "done" at the end of its rung or an early one of its own, "failed", or "crashed" by an error that
            is none of the engine's.
        progress: where it is; None where it has not begun.
        failure: why it failed.
        words: what it crashed with.
    """

    how: Literal["done", "stopped", "paused", "failed", "crashed"]
    progress: Progress | None = None
    failure: RunFailed | None = None
    words: str = ""
