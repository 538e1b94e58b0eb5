"""Shows a run with Trackio: in a folder, at a server of one's own, or in a Space of the hub."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from workers.jobs.sinks.base import ShownRun, Unavailable, numbers

PLACES = ("TRACKIO_DIR", "TRACKIO_SERVER_URL", "TRACKIO_SPACE_ID")
OFFLINE = "HF_HUB_OFFLINE"
"""Trainings are offline for the hub's client; a Space lies there."""


class Trackio:
    """One run there, found again by its name. Raises `Unavailable` where package or place is missing."""

    def __init__(self, run: ShownRun) -> None:
        os.environ.pop(OFFLINE, None)  # before its import, which reads it
        try:
            import trackio
        except ImportError:
            raise Unavailable("its package `trackio` is not installed on the worker.") from None
        if not any(os.environ.get(place) for place in PLACES):
            raise Unavailable(f"the worker has none of {', '.join(PLACES)}.")
        self._run: Any = trackio.init(
            project=run.wanted["project"],
            name=run.name,
            config=run.shown_config,
            resume="allow",
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )
        self._is_in_order = run.is_in_order
        self._first: int = self._run._next_step  # it has no public name; a test holds it

    def has(self, step: int) -> bool:
        """Says whether the step lies below where the run goes on."""
        return self._is_in_order and step < self._first

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Hands the numbers to the library, which sends them by itself."""
        self._run.log(dict(numbers(values)), step=step)

    def close(self) -> None:
        """Waits until the library has sent everything, or keeps it in its folder for the next time."""
        self._run.finish()
