"""A few steps of the built-in model on the example about people, for the checks that need a run."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

from graders import build_grader, parse_grader
from methods.rows import read_rows
from methods.train_config import TrainConfig
from tests.workers.training.support import ListRecorder
from workers.training.loop import train

PEOPLE = Path("examples/people")
NANO = Path("workers/models/cherry_nano").resolve()
STEPS = 3


def short_run(device: str, folder: Path, **changes: Any) -> ListRecorder:
    """Trains for `STEPS` steps with these changes to the config, and returns all that was told."""
    fields: dict[str, Any] = {
        "model": "cherry-nano",
        "model_path": str(NANO),
        "seed": 1,
        "n_epochs": 1,
        "prompts_per_step": 4,
        "group_size": 8,
        "max_completion_tokens": 48,
        "learning_rate": 5e-4,
        "eval_interval": STEPS,
        "kl_probe_size": 4,
        "device": device,
    }
    rows = read_rows(PEOPLE / "train.jsonl")[: 4 * STEPS], read_rows(PEOPLE / "valid.jsonl")[:4]
    grader = build_grader(parse_grader(json.loads((PEOPLE / "grader.json").read_text("utf-8"))))
    told = ListRecorder()
    train(TrainConfig(**{**fields, **changes}), *rows, grader, told, folder)
    return told


def unknown_numbers(told: ListRecorder) -> list[str]:
    """Returns the names of metrics that were no finite number in some step."""
    steps = told.history().values()
    return sorted({name for step in steps for name, value in step.items() if not _is_finite(value)})


def _is_finite(value: Any) -> bool:
    return not isinstance(value, float) or math.isfinite(value)
