"""When a run will be over, from what its steps, validations and savings have taken so far."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

from methods import metrics as names

RECENT_STEPS = 20
RECENT_VALIDATIONS = 3


class FinishEstimate:
    """The rest of one run. Steps with and without a validation are told apart, and so is what follows them:
    a checkpoint takes longer to save than a step's numbers.
    """

    def __init__(self, total_steps: int, eval_interval: int) -> None:
        self._total = total_steps
        self._interval = eval_interval
        self._training: deque[float] = deque(maxlen=RECENT_STEPS)
        self._validations: deque[float] = deque(maxlen=RECENT_VALIDATIONS)
        self._after: dict[bool, deque[float]] = {
            with_checkpoint: deque(maxlen=RECENT_STEPS) for with_checkpoint in (False, True)
        }
        self._last: tuple[int, float] | None = None
        self._seen = 0

    def learn(self, step: int, values: Mapping[str, Any]) -> None:
        """Take in a step of an earlier attempt: only what it took, not when."""
        self._count(step, values)

    def told(self, step: int, values: Mapping[str, Any], now: float) -> None:
        """Take in a step that has just ended. `now` is of a clock that only goes forward, in seconds."""
        if self._last is not None and self._last[0] == step - 1 and names.TIME_STEP in values:
            between = now - self._last[1] - float(values[names.TIME_STEP])
            self._after[self._has_checkpoint(step - 1)].append(max(0.0, between))
        self._last = (step, now)
        self._count(step, values)

    def seconds_left(self, step: int) -> float | None:
        """From the end of a step to the end of the job; None until a step's time is known."""
        if not self._training:
            return None
        later = range(step + 1, self._total + 1)
        validations = sum(self._has_checkpoint(each) for each in later)
        left = len(later) * _mean(self._training) + validations * _mean(self._validations)
        is_pending = self._has_checkpoint(step)  # what follows this step is still to come
        savings = validations + is_pending
        return left + savings * _mean(self._after[True]) + self._plain(step) * _mean(self._after[False])

    def _plain(self, step: int) -> int:
        return sum(not self._has_checkpoint(each) for each in range(step, self._total + 1))

    def _count(self, step: int, values: Mapping[str, Any]) -> None:
        validation = float(values.get(names.TIME_EVAL) or 0.0)
        if validation:
            self._validations.append(validation)
        if step == 0 or names.TIME_STEP not in values:
            return
        if self._seen == 1:  # the first one also warmed up
            self._training.clear()
        self._seen += 1
        self._training.append(float(values[names.TIME_STEP]) - validation)

    def _has_checkpoint(self, step: int) -> bool:
        return step % self._interval == 0 or step == self._total


def _mean(values: Sequence[float] | deque[float]) -> float:
    return math.fsum(values) / len(values) if values else 0.0
