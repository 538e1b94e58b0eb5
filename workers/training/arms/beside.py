"""Trains arms side by side, each in a process and on a device of its own.

This process trains nothing. It hears what the others tell, one message after another, and is the only one
that tells the job's recorder and saves the job's state, as it is in turn.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait
from typing import Any, NamedTuple, Protocol

from workers.training.arms.job import ArmsJob
from workers.training.arms.messages import (
    JUDGED_BY,
    REMARK,
    SHALL_PAUSE,
    SHALL_STOP,
    SPENT,
    TASK,
    Ended,
    Graders,
    MakeEnvironment,
    Task,
)
from workers.training.arms.recorder import ArmRecorder, Whose
from workers.training.base.errors import RunCancelled, RunPaused
from workers.training.sampling.backend import OpenRollouts
from workers.training.state import read_progress
from workers.training.trust.arm import nobody

LOOK_SECONDS = 1.0
"""Between two looks whether a process is gone whose connection something that it started holds open. Chosen,
not measured: only a run that is lost anyway waits for it.
"""


class Companion(Protocol):
    """Is a process that trains one arm with `child.train_for`."""

    @property
    def connection(self) -> Connection:
        """Returns this side of what it tells and is answered over."""

    def is_gone(self) -> bool:
        """Says whether it has ended."""

    def leave(self) -> int:
        """Waits for its end, which is near, and returns its exit code, negative for a signal."""

    def kill(self) -> None:
        """Ends it and all that it has started, unless it has ended."""


class Seats(NamedTuple):
    """Says how many processes may train side by side, and how one is started.

    Attributes:
        devices: how many there are.
        start: takes the number of a device, from 0.
        graders: makes the graders in such a process.
        patience: after how many silent seconds a process is taken for lost.
        environment: makes the environment in such a process, where there is one.
        rollouts: opens what samples rollouts in such a process, where that is not its own sampler.
    """

    devices: int
    start: Callable[[int], Companion]
    graders: Graders
    patience: float = math.inf
    environment: MakeEnvironment | None = None
    rollouts: OpenRollouts | None = None


class ArmLost(Exception):
    """Says that the process of an arm ended by itself. The others have saved their states.

    Attributes:
        code: its exit code, negative for a signal.
    """

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


@dataclass
class _Seated:
    """One arm that is being trained, and where."""

    seat: int
    whose: Whose
    companion: Companion
    task: Task
    recorder: ArmRecorder
    heard: float
    """When it last said something, by a clock that only goes forward."""


class Beside:
    """Trains the arms of a rung at once, as many as there are seats; the others as seats become free."""

    def __init__(self, job: ArmsJob, seats: Seats) -> None:
        self._job = job
        self._seats = seats
        self._seated: list[_Seated] = []
        self._clocks: list[float] = []
        """What the job's clock shows at each seat: it goes on where an arm has left."""
        self._is_stopping = False
        self._is_pausing = False
        self._is_pause_told = False
        self._lost: ArmLost | None = None

    def train(self, arms: Sequence[Whose], until: int) -> None:
        """Trains what is left of arms up to a step of their own.

        All are asked to stop, or to pause, if one is, or if one is lost; they save their states before this
        raises. Raises what a single run does, and `ArmLost`.
        """
        self._clocks = [self._job.progress.seconds] * self._seats.devices
        waiting = deque(arms)
        try:
            while self._fill(waiting, until):
                wait([one.companion.connection for one in self._seated], LOOK_SECONDS)
                for one in list(self._seated):
                    self._look(one)
        finally:
            for one in self._seated:
                one.companion.kill()
        self._raise_why_ended()

    def _raise_why_ended(self) -> None:
        if self._lost is not None:
            raise self._lost
        if self._is_stopping:
            raise RunCancelled(self._job.progress.step)
        if self._is_pausing:
            raise RunPaused(self._job.progress.step)

    def _fill(self, waiting: deque[Whose], until: int) -> bool:
        """Lets arms begin where a seat is free. Returns whether any is being trained."""
        taken = {one.seat for one in self._seated}
        free = sorted(set(range(self._seats.devices)) - taken, key=lambda seat: self._clocks[seat])
        for seat in free:
            while waiting and not self._job.is_left(waiting[0], until):
                waiting.popleft()
            if not waiting or self._is_ending or not self._may_begin(waiting[0]):
                break
            self._begin(seat, waiting.popleft(), until)
        return bool(self._seated)

    @property
    def _is_ending(self) -> bool:
        return self._is_stopping or self._is_pausing

    def _may_begin(self, whose: Whose) -> bool:
        """Whether the base is known, which the first arm measures for all."""
        return whose.number == 0 or 0 in self._job.progress.arms

    def _begin(self, seat: int, whose: Whose, until: int) -> None:
        job, given = self._job, self._job.given
        arm = job.begin(whose, until, self._clocks[seat])
        rows = (given.train_rows, given.valid_rows, given.canary_rows)
        alone = replace(arm, others=nobody)  # the process asks here instead
        config, folder, seats = job.config_of(whose), job.folder_of(whose), self._seats
        task = Task(config, *rows, seats.graders, folder, alone, seats.environment, seats.rollouts)
        companion, recorder = self._seats.start(seat), job.recorder_of(whose)
        self._seated.append(_Seated(seat, whose, companion, task, recorder, time.monotonic()))
        job.training.add(whose.number)

    def _look(self, one: _Seated) -> None:
        """Hears an arm that has said something; takes it for lost if it will not any more."""
        is_gone = one.companion.is_gone()
        if one.companion.connection.poll():
            self._hear(one)
            one.heard = time.monotonic()
        elif is_gone:
            self._leave(one, Ended("crashed"))
        elif time.monotonic() - one.heard > self._seats.patience:
            one.companion.kill()
            words = f"its process said nothing for {self._seats.patience:.0f} seconds"
            self._leave(one, Ended("crashed", words=words))

    def _hear(self, one: _Seated) -> None:
        """Takes an arm's next message, and answers it."""
        try:
            message = one.companion.connection.recv()
        except (EOFError, OSError):
            self._leave(one, Ended("crashed"))
            return
        if isinstance(message, Ended):
            self._leave(one, message)
            return
        answer = self._answer(one, *message)
        try:
            one.companion.connection.send(answer)
        except OSError:
            self._leave(one, Ended("crashed"))

    def _answer(self, one: _Seated, name: str, args: tuple[Any, ...]) -> Any:
        job, number = self._job, one.whose.number
        if name == TASK:
            return one.task
        if name == SHALL_STOP:
            self._is_stopping |= job.given.should_stop()
            return self._is_stopping
        if name == SHALL_PAUSE:
            self._is_pausing |= job.given.should_pause()
            return self._is_pausing
        if name == SPENT:
            (job.spent[number],) = args
            return job.others(number)
        if name == JUDGED_BY:
            (job.progress.sampled,) = args
        elif name == REMARK:
            job.recorder.note("warn", *args)
        elif name == "pausing":
            self._pause(one, *args)
        else:
            if name == "state":
                job.progress.arms[number] = read_progress(args[1])
            getattr(one.recorder, name)(*args)
        return None

    def _pause(self, one: _Seated, message: str) -> None:
        """Lets all pause for a budget that one has found used up, and tells that once."""
        if not self._is_pause_told:
            one.recorder.pausing(message)
        self._is_pause_told = self._is_pausing = True

    def _leave(self, one: _Seated, ended: Ended) -> None:
        """Takes note of how an arm's training has ended. Raises its failure where that is the job's."""
        job, number = self._job, one.whose.number
        code = one.companion.leave()
        self._seated.remove(one)
        job.training.discard(number)
        job.spent.pop(number, None)
        if ended.progress is not None:
            job.progress.arms[number] = ended.progress
            self._clocks[one.seat] = job.progress.ahead[number] + ended.progress.seconds
        self._is_stopping |= ended.how in ("stopped", "crashed")
        self._is_pausing |= ended.how == "paused"
        if ended.how == "crashed":
            self._lost = self._lost or ArmLost(f"{one.whose}: {ended.words or _in_words(code)}", code)
        if ended.failure is not None:
            job.lose(one.whose, ended.failure)


def _in_words(code: int) -> str:
    if code >= 0:
        return f"its process exited with code {code}"
    killed = " perhaps for lack of memory" if code == -9 else ""
    return f"its process was ended by signal {-code}{',' if killed else ''}{killed}"
