"""Recorders that need no database: JSON lines, the console, and several at once."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, TextIO

from methods import metrics as names
from workers.training.base.recorder import Phase, Recorder
from workers.training.base.types import Action, Checkpoint, Completion, Group, Split

log = logging.getLogger(__name__)


class JsonlRecorder:
    """Appends to `metrics.jsonl`, `rollouts.jsonl`, `checkpoints.jsonl`, `actions.jsonl` and `notes.jsonl`.

    Each line holds its step. For a run that resumes after `resumed_step` (-1: it starts anew), it first drops
    the lines of later steps, which will be told again.
    """

    def __init__(self, folder: Path, *, resumed_step: int = -1) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        for name in ("metrics", "rollouts", "checkpoints", "actions"):
            _truncate(folder / f"{name}.jsonl", resumed_step)

    def phase(self, phase: Phase) -> None:
        """Writes nothing: a phase says nothing once it is over."""

    def metrics(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        """Appends the numbers of a step."""
        self._append("metrics", {"step": step, "epoch": epoch, **values})

    def rollouts(self, split: Split, step: int, epoch: int, groups: Sequence[Group]) -> None:
        """Appends a line for each group, with every completion and its grade."""
        for group in groups:
            samples = [
                {
                    "text": completion.text,
                    "finish_reason": completion.finish_reason,
                    "reward": grade.value,
                    "failure": grade.failure and f"{grade.failure.kind}: {grade.failure.message}",
                    "parts": dict(grade.parts),
                    "reason": grade.reason,
                    **({"sampled_by": completion.sampled_by} if completion.sampled_by else {}),
                    **_message(completion),
                    **_episode(completion),
                }
                for completion, grade in zip(group.completions, group.grades, strict=True)
            ]
            place = group.prompt.file_row
            row = {"step": step, "epoch": epoch, "split": split, "row": place, "line": place + 1}
            self._append("rollouts", {**row, "samples": samples})

    def checkpoint(self, saved: Checkpoint) -> None:
        """Appends what is known of a checkpoint."""
        self._append("checkpoints", {**vars(saved), "folder": saved.folder.name})

    def snapshot(self, saved: Checkpoint) -> None:
        """Appends what is known of a snapshot, marked as one."""
        self._append("checkpoints", {**vars(saved), "folder": saved.folder.name, "snapshot": True})

    def dropped(self, step: int) -> None:
        """Appends that a step's checkpoint is gone."""
        self._append("checkpoints", {"step": step, "dropped": True})

    def state(self, step: int, folder: Path) -> None:
        """Writes nothing: the folder is there to see."""

    def pausing(self, message: str) -> None:
        """Appends the sentence as a warning."""
        self.note("warn", message)

    def action(self, action: Action) -> None:
        """Appends what the run did of its own accord."""
        self._append("actions", {**vars(action), "figures": dict(action.figures)})

    def note(self, level: Literal["info", "warn"], message: str) -> None:
        """Appends a sentence and its level."""
        self._append("notes", {"level": level, "message": message})

    def _append(self, name: str, row: Mapping[str, Any]) -> None:
        with (self._folder / f"{name}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


class ConsoleRecorder:
    """Prints one line for each step, for a person."""

    def __init__(self, total_steps: int, out: TextIO) -> None:
        self._total_steps = total_steps
        self._out = out

    def phase(self, phase: Phase) -> None:
        """Prints nothing."""

    def metrics(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        """Prints the few numbers that a person follows."""
        shown = (
            ("reward", names.REWARD_MEAN, ".3f"),
            ("valid", names.VALID_REWARD_MEAN, ".3f"),
            ("kl", names.KL_PROBE_MEAN, ".4f"),
            ("entropy", names.ENTROPY_MEAN, ".3f"),
            ("tokens", names.COMPLETION_TOKENS_MEAN.format(split="train"), ".1f"),
            ("ungraded", names.UNGRADED_SHARE.format(split="train"), ".0%"),
            ("seconds", names.TIME_STEP, ".2f"),
        )
        found = [f"{label} {values[name]:{form}}" for label, name, form in shown if name in values]
        self._print(f"step {step}/{self._total_steps} epoch {epoch}  " + "  ".join(found))

    def rollouts(self, split: Split, step: int, epoch: int, groups: Sequence[Group]) -> None:
        """Prints nothing."""

    def checkpoint(self, saved: Checkpoint) -> None:
        """Prints the name of the checkpoint's folder."""
        self._print(f"  saved {saved.folder.name}")

    def snapshot(self, saved: Checkpoint) -> None:
        """Prints the name of the snapshot's folder."""
        self._print(f"  saved {saved.folder.name}")

    def dropped(self, step: int) -> None:
        """Prints nothing."""

    def state(self, step: int, folder: Path) -> None:
        """Prints nothing."""

    def pausing(self, message: str) -> None:
        """Prints the sentence as a warning."""
        self.note("warn", message)

    def action(self, action: Action) -> None:
        """Prints what the run did of its own accord."""
        self._print(f"  {action.message}")

    def note(self, level: Literal["info", "warn"], message: str) -> None:
        """Prints a sentence and its level."""
        self._print(f"  {level}: {message}")

    def _print(self, line: str) -> None:
        print(line, file=self._out, flush=True)


class FanOut:
    """Tells one recorder that matters, then listeners on the side, whose errors are logged and forgotten."""

    def __init__(self, main: Recorder, *listeners: Recorder) -> None:
        self._main = main
        self._listeners = listeners

    def phase(self, phase: Phase) -> None:
        """Tells all."""
        self._tell("phase", phase)

    def metrics(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        """Tells all."""
        self._tell("metrics", step, epoch, values)

    def rollouts(self, split: Split, step: int, epoch: int, groups: Sequence[Group]) -> None:
        """Tells all."""
        self._tell("rollouts", split, step, epoch, groups)

    def checkpoint(self, saved: Checkpoint) -> None:
        """Tells all."""
        self._tell("checkpoint", saved)

    def snapshot(self, saved: Checkpoint) -> None:
        """Tells all."""
        self._tell("snapshot", saved)

    def dropped(self, step: int) -> None:
        """Tells all."""
        self._tell("dropped", step)

    def state(self, step: int, folder: Path) -> None:
        """Tells all."""
        self._tell("state", step, folder)

    def pausing(self, message: str) -> None:
        """Tells all."""
        self._tell("pausing", message)

    def action(self, action: Action) -> None:
        """Tells all."""
        self._tell("action", action)

    def note(self, level: Literal["info", "warn"], message: str) -> None:
        """Tells all."""
        self._tell("note", level, message)

    def _tell(self, method: str, *args: object) -> None:
        getattr(self._main, method)(*args)
        for listener in self._listeners:
            try:
                getattr(listener, method)(*args)
            except Exception:  # a side listener never stops a run
                log.exception("recorder_failed", extra={"recorder": type(listener).__name__})


class Silent:
    """Tells no one: for every process of a run but the main one."""

    def phase(self, phase: Phase) -> None:
        """Tells nobody."""

    def metrics(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        """Tells nobody."""

    def rollouts(self, split: Split, step: int, epoch: int, groups: Sequence[Group]) -> None:
        """Tells nobody."""

    def checkpoint(self, saved: Checkpoint) -> None:
        """Tells nobody."""

    def snapshot(self, saved: Checkpoint) -> None:
        """Tells nobody."""

    def dropped(self, step: int) -> None:
        """Tells nobody."""

    def state(self, step: int, folder: Path) -> None:
        """Tells nobody."""

    def pausing(self, message: str) -> None:
        """Tells nobody."""

    def action(self, action: Action) -> None:
        """Tells nobody."""

    def note(self, level: Literal["info", "warn"], message: str) -> None:
        """Tells nobody."""


def _message(completion: Completion) -> dict[str, Any]:
    """Returns a completion taken apart, where its text is not all answer."""
    if completion.turns or completion.parts is None or completion.parts.is_plain:
        return {}
    return {"message": completion.parts.message}


def _episode(completion: Completion) -> dict[str, Any]:
    """Returns the turns of a completion, where it has several."""
    if not completion.turns:
        return {}
    told: dict[str, Any] = {
        "trace_id": completion.trace_id,
        "turns": [turn.told for turn in completion.turns],
    }
    if completion.environment_reward is not None:
        told["environment_reward"] = completion.environment_reward
    return told


def _truncate(file: Path, last_step: int) -> None:
    """Keeps complete lines up to a step; the last one may have been cut by a kill."""
    if not file.exists():
        return
    kept = []
    for line in file.read_text(encoding="utf-8").splitlines():
        try:
            step = json.loads(line)["step"]
        except ValueError:
            continue
        if step <= last_step:
            kept.append(line + "\n")
    replacement = file.with_suffix(".tmp")
    replacement.write_text("".join(kept), encoding="utf-8")
    replacement.replace(file)
