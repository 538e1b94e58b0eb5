"""Says what a sink is, and what one needs to know of the run that it shows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

MAX_TAG = 64
MODEL_PATH = "model_path"
"""The one value of a config that says more of a machine than of a run."""


class Unavailable(Exception):
    """The run cannot be shown there, however often it is tried; the text says why."""


@dataclass(frozen=True)
class ShownRun:
    """The run that a sink shows.

    Attributes:
        wanted: what the job's owner asked for, as its integration has it.
        config: the resolved configuration of the job.
        data_dir: the worker's working folder; a sink keeps its files in a folder of its name below it.
    """

    job_id: str
    model: str
    wanted: Mapping[str, Any]
    config: Mapping[str, Any]
    data_dir: str

    @property
    def name(self) -> str:
        """Returns what the run is called: no two jobs have one name, or they would become one run."""
        return f"{self.wanted['name']} {self.job_id}" if self.wanted.get("name") else self.job_id

    @property
    def is_in_order(self) -> bool:
        """Says whether steps are told in rising order; those of seeds side by side come as they are made."""
        return 1 in (self.config.get("n_seeds", 1), self.config.get("processes", 1))

    @property
    def shown_config(self) -> dict[str, Any]:
        """Returns the configuration without the folder of the model."""
        return {name: value for name, value in self.config.items() if name != MODEL_PATH}

    def folder(self, name: str) -> Path:
        """Returns a folder of a sink below the working folder, made if it is not there."""
        folder = Path(self.data_dir) / name
        folder.mkdir(parents=True, exist_ok=True)
        return folder


class Sink(Protocol):
    """Is told of steps, each once. Any method may raise: the step is then tried again."""

    def has(self, step: int) -> bool:
        """Says whether the step is there already, from an attempt before this one."""

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Takes the numbers of a step."""

    def close(self) -> None:
        """Sends the rest."""


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Returns what is a finite number of the values of a step."""
    found = {name: value for name, value in values.items() if isinstance(value, int | float)}
    return {name: float(value) for name, value in found.items() if math.isfinite(value)}


def tags(run: ShownRun) -> Sequence[str]:
    """Returns the owner's tags, and the ones that OpenAI adds under its own name."""
    ours = ("cherry/finetune", f"cherry/{run.model}", f"cherry/{run.job_id}")
    return [*(run.wanted.get("tags") or ()), *(tag[:MAX_TAG] for tag in ours)]
