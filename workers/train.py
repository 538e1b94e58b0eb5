"""`python -m workers.train CONFIG.toml`: the same engine with no database, no queue and no service.

The file names the data, the grader, if wanted a `gold_grader`, and the output folder, and holds a `[config]`
table with the fields of `TrainConfig`. Paths are relative to the file. Run it again to resume a run that was
stopped. With `processes` above 1, start it with torchrun (docs/scaling.md).
"""

from __future__ import annotations

import json
import sys
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from graders import GraderInvalid, build_grader, parse_grader
from graders.spec import GraderSpec, known_range
from methods.rows import MAX_VALID_ROWS, DatasetInvalid, Row, read_rows
from methods.train_config import TrainConfig
from workers.training.arms.states import LAST_NUMBER
from workers.training.base.distributed import World
from workers.training.base.errors import EngineError
from workers.training.base.recorder import Recorder
from workers.training.folders import read_manifest
from workers.training.loop import train
from workers.training.recorders import ConsoleRecorder, FanOut, JsonlRecorder, Silent
from workers.training.state import saved_steps, state_folder

KEYS = {"train", "valid", "grader", "gold_grader", "output", "config"}


class RunFileInvalid(ValueError):
    """The TOML file is not what the module's docstring asks for."""


@dataclass(frozen=True)
class RunFile:
    """What one TOML file asks for, with its files read."""

    config: TrainConfig
    train_rows: list[Row]
    valid_rows: list[Row]
    grader: Any
    gold_grader: Any
    output: Path


def read_run_file(path: Path) -> RunFile:
    """Read the TOML file and all it names. Raises `RunFileInvalid` with a sentence."""
    base = path.parent
    try:
        raw = tomllib.loads(path.read_text(encoding="utf-8"))
        if unknown := raw.keys() - KEYS:
            raise RunFileInvalid(f"unknown keys: {', '.join(sorted(unknown))}")
        fields = dict(raw["config"])
        fields["model_path"] = str((base / fields["model_path"]).resolve())
        spec = _grader(raw["grader"], base)
        fields.setdefault("reward_range", known_range(spec))
        gold = _grader(raw["gold_grader"], base) if "gold_grader" in raw else None
        if gold is not None:
            fields.setdefault("gold_range", known_range(gold))
        return RunFile(
            config=TrainConfig(**fields),
            train_rows=read_rows(base / raw["train"]),
            valid_rows=read_rows(base / raw["valid"], max_rows=MAX_VALID_ROWS) if "valid" in raw else [],
            grader=build_grader(spec),
            gold_grader=None if gold is None else build_grader(gold),
            output=base / raw["output"],
        )
    except KeyError as error:
        raise RunFileInvalid(f"{path.name}: {error} is missing") from error
    except (OSError, tomllib.TOMLDecodeError, ValidationError, DatasetInvalid, GraderInvalid) as error:
        raise RunFileInvalid(f"{path.name}: {error}") from error


def _grader(given: Any, base: Path) -> GraderSpec:
    """A grader of the file, or of the file that it names."""
    if isinstance(given, str):
        given = json.loads((base / given).read_text(encoding="utf-8"))
    return parse_grader(given)


def _last_told(folder: Path, states: list[int]) -> int:
    """The largest number of a step that the newest state holds; -1 without any."""
    if not states:
        return -1
    manifest = read_manifest(state_folder(folder, states[0]), verify=False)
    last: int = manifest.get(LAST_NUMBER, states[0])
    return last


def main(arguments: list[str]) -> int:
    """Run what a file asks for; returns the exit status."""
    if len(arguments) != 1:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        run = read_run_file(Path(arguments[0]))
        world = World.from_environment(run.config.device)
        if world.size != run.config.processes:
            wanted = run.config.processes
            raise RunFileInvalid(f"processes is {wanted}, but {world.size} run: see docs/scaling.md")
        states = saved_steps(run.output)
        total_steps = run.config.job_steps(len(run.train_rows))
        recorder: Recorder = Silent()
        if world.is_main:
            recorder = FanOut(
                JsonlRecorder(run.output, resumed_step=_last_told(run.output, states)),
                ConsoleRecorder(total_steps, sys.stdout),
            )
        rows = (run.train_rows, run.valid_rows)
        gold = run.gold_grader
        result = train(run.config, *rows, run.grader, recorder, run.output, world=world, gold_grader=gold)
        world.close()
    except (RunFileInvalid, EngineError) as error:
        print(error, file=sys.stderr)
        return 1
    if not world.is_main:
        return 0
    best = result.best
    if best.step == 0:
        print("No checkpoint is better than the base on the validation rows.")
    print(f"Best: {best.folder / 'model'} (step {best.step}, KL to the base {best.kl:.4f} nats per token)")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
