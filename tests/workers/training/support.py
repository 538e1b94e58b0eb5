"""Graders, a recorder and configs for the engine's tests."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from graders import Failure, FailureKind, Grade, Sample
from methods.rows import Row
from methods.train_config import TrainConfig
from tests.tiny_model import BEGIN, END, PAD
from workers.training.base.types import Action, Checkpoint, Completion, Group, Prompt, Split

TIMES = ("time/", "grades/train_seconds_mean", "grades/valid_seconds_mean")


class FunctionGrader:
    """Grades with a function from text and item to a number, a failure kind or a whole grade."""

    type = "python"

    def __init__(self, function: Callable[[str, Mapping[str, Any]], float | FailureKind | Grade]) -> None:
        self.name = "test"
        self._function = function

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        found = self._function(sample.output_text, item)
        if isinstance(found, Grade):
            return found
        if isinstance(found, FailureKind):
            return Grade(None, Failure(found, "made up"))
        return Grade(found)


class ListRecorder:
    """Remembers everything it is told, in order."""

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []

    def phase(self, phase: str) -> None:
        self.told.append(("phase", phase))

    def metrics(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        self.told.append(("metrics", step, epoch, dict(values)))

    def rollouts(self, split: Split, step: int, epoch: int, groups: Sequence[Group]) -> None:
        self.told.append(("rollouts", split, step, epoch, list(groups)))

    def checkpoint(self, saved: Checkpoint) -> None:
        self.told.append(("checkpoint", saved))

    def snapshot(self, saved: Checkpoint) -> None:
        self.told.append(("snapshot", saved))

    def dropped(self, step: int) -> None:
        self.told.append(("dropped", step))

    def state(self, step: int, folder: Path) -> None:
        self.told.append(("state", step, folder))

    def pausing(self, message: str) -> None:
        self.told.append(("pausing", message))

    def action(self, action: Action) -> None:
        self.told.append(("action", action))

    def note(self, level: str, message: str) -> None:
        self.told.append(("note", level, message))

    def all(self, kind: str) -> list[tuple[Any, ...]]:
        return [entry[1:] for entry in self.told if entry[0] == kind]

    def series(self, name: str) -> list[float]:
        """One metric over the steps that have it."""
        return [values[name] for _, _, values in self.all("metrics") if name in values]

    def history(self) -> dict[int, dict[str, Any]]:
        """Metrics of each step as last told, without times."""
        return {
            step: {name: value for name, value in values.items() if not name.startswith(TIMES)}
            for step, _, values in self.all("metrics")
        }


TOLD = {
    "phase",
    "metrics",
    "rollouts",
    "checkpoint",
    "snapshot",
    "dropped",
    "state",
    "pausing",
    "action",
    "note",
}


class Killed(BaseException):
    """Stands for a kill: nothing catches it."""


class KilledRecorder(ListRecorder):
    """Raises `Killed` instead of taking its n-th message."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self._left = after
        self._lock = threading.Lock()

    def __getattribute__(self, name: str) -> Any:
        if name in TOLD:
            with self._lock:
                self._left -= 1
            if self._left < 0:
                raise Killed
        return super().__getattribute__(name)


def make_config(model: Path, **changes: Any) -> TrainConfig:
    fields: dict[str, Any] = {
        "model": "tiny",
        "model_path": str(model),
        "seed": 1,
        "n_epochs": 2,
        "prompts_per_step": 2,
        "group_size": 4,
        "max_completion_tokens": 6,
        "learning_rate": 1e-2,
        "lora_rank": 4,
        "lora_alpha": 8.0,
        "eval_interval": 2,
        "save_state_every": 2,
        "kl_probe_size": 4,
        "device": "cpu",
    }
    return TrainConfig(**{**fields, **changes})


def make_rows(*texts: str) -> list[Row]:
    return [
        Row(line=i + 1, item={"messages": [{"role": "user", "content": text}], "answer": text})
        for i, text in enumerate(texts)
    ]


def reward_groups(rewards: Sequence[Sequence[float]]) -> list[Group]:
    """Returns a graded group for each list of rewards."""
    completion = Completion((1,), (0.0,), text="", finish_reason="stop")
    return [
        Group(Prompt(i, {}, (1,)), (completion,) * len(row), tuple(Grade(value) for value in row))
        for i, row in enumerate(rewards)
    ]


SPECIAL = re.compile("|".join(map(re.escape, (PAD, BEGIN, END))))


def early_letters(text: str, _: Mapping[str, Any]) -> float:
    """Share of an answer that is one of twenty characters; the names of special tokens do not count."""
    plain = SPECIAL.sub("", text)
    return sum(c in "abcdefghijklmnopqrst" for c in plain) / max(len(plain), 1)


def group_of(prompt: Prompt, *completions: Sequence[int], logprob: float = -1.0) -> Group:
    return Group(
        prompt,
        tuple(
            Completion(tuple(tokens), (logprob,) * len(tokens), text="", finish_reason="length")
            for tokens in completions
        ),
    )


def sampling_threads() -> list[threading.Thread]:
    """Those that sample the next step."""
    return [thread for thread in threading.enumerate() if thread.name.startswith("sample-ahead")]
