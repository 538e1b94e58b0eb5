"""Writes a run's numbers as TensorBoard's event files, in `tensorboard/JOB` below the working folder."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from workers.jobs.sinks.base import ShownRun, Unavailable, numbers

FOLDER = "tensorboard"
CONFIG = "config.json"


class TensorBoard:
    """One run: a folder with a file for each attempt. Raises `Unavailable` where the package is missing."""

    def __init__(self, run: ShownRun) -> None:
        try:
            from tensorboard.compat.proto.event_pb2 import Event
            from tensorboard.compat.proto.summary_pb2 import Summary
            from tensorboard.summary.writer.event_file_writer import EventFileWriter
        except ImportError:
            raise Unavailable("its package `tensorboard` is not installed on the worker.") from None
        folder = run.folder(f"{FOLDER}/{run.job_id}")
        self._known = _steps_in(folder)
        (folder / CONFIG).write_text(json.dumps(run.shown_config, indent=2, default=str), "utf-8")
        self._event, self._summary = Event, Summary
        self._writer = EventFileWriter(str(folder))

    def has(self, step: int) -> bool:
        """Says whether a file of an earlier attempt has the step."""
        return step in self._known

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Writes the numbers as one event."""
        found = [self._summary.Value(tag=name, simple_value=value) for name, value in numbers(values).items()]
        event = self._event(wall_time=time.time(), step=step, summary=self._summary(value=found))
        self._writer.add_event(event)
        self._writer.flush()

    def close(self) -> None:
        """Closes the file."""
        self._writer.close()


def _steps_in(folder: Path) -> set[int]:
    """Returns the steps that the files of a run have. One that a kill has cut is read as far as it goes."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    events = (event for path in folder.glob("events.*") for event in EventFileLoader(str(path)).Load())
    return {event.step for event in events if event.HasField("summary")}
