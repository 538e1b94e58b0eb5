"""How much of the machine the sampler takes while a training runs on it."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from app.jobs.training_mark import is_training

LOOK_SECONDS = 1.0
"""How long what was seen of trainings counts. Chosen, not measured."""


class Share:
    """Says how long to rest after each step, so that steps take at most their share of the time."""

    def __init__(self, share: float, data_dir: Path, clock: Callable[[], float] = time.monotonic) -> None:
        """`share` is in (0, 1]; 1 never rests."""
        self._rest = 1 / share - 1
        self._data_dir = data_dir
        self._clock = clock
        self._looked: float | None = None
        self._is_training = False

    def pause(self, seconds: float) -> float:
        """Returns how long to rest after a step that took so many seconds; 0 while nothing is trained."""
        return seconds * self._rest if self._rest and self._sees_training() else 0.0

    def _sees_training(self) -> bool:
        now = self._clock()
        if self._looked is None or now - self._looked >= LOOK_SECONDS:
            self._looked, self._is_training = now, is_training(self._data_dir)
        return self._is_training
