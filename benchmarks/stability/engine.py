"""Runs one job with the engine that this process imports, through the front that a job goes through."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from benchmarks.stability.material import JobGrader, Material, rows_of
from benchmarks.stability.plan import Run, seed_of
from benchmarks.stability.sampler import Loaded, load
from methods.hyperparameters import Facts
from methods.resolve import resolve_train
from methods.rows import Row
from workers.training.base.errors import EngineError
from workers.training.base.types import Checkpoint
from workers.training.loop import train
from workers.training.prompts import make_prompts

SHOWN_NOTES = 12
"""Sentences of a run that its result keeps, each up to 300 characters."""


@dataclass
class Outcome:
    """What came of a run: how to get the models it delivers (None: the base), and facts to keep."""

    models: dict[str, Callable[[], Loaded] | None]
    facts: dict[str, Any] = field(default_factory=dict)


class Listener:
    """A recorder that keeps what the report needs, and knows the calls of older and newer engines."""

    def __init__(self) -> None:
        self.checkpoints: list[Checkpoint] = []
        self.actions: list[dict[str, Any]] = []
        self.notes: list[str] = []
        self.last_step = 0

    def metrics(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:  # noqa: ARG002
        self.last_step = max(self.last_step, step)

    def checkpoint(self, saved: Checkpoint) -> None:
        self.checkpoints.append(saved)

    def action(self, action: Any) -> None:
        facts = {name: getattr(action, name) for name in ("step", "kind", "reason", "is_done")}
        self.actions.append({**facts, "figures": _plain(action.figures)})

    def note(self, level: str, message: str) -> None:
        self.notes.append(f"{level}: {message}"[:300])

    def phase(self, *_: Any) -> None: ...

    def rollouts(self, *_: Any) -> None: ...

    def pausing(self, *_: Any) -> None: ...

    def snapshot(self, *_: Any) -> None: ...

    def dropped(self, *_: Any) -> None: ...

    def state(self, *_: Any) -> None: ...


def config_of(run: Run, material: Material, model: Path) -> Any:
    """Resolves what a request with the run's few numbers means; all else is "auto"."""
    rows = rows_of(material.train), rows_of(material.valid)
    tokenizer = AutoTokenizer.from_pretrained(model)
    shape = json.loads((model / "config.json").read_text())
    context = int(shape["max_position_embeddings"])
    lengths = [len(one.tokens) for each in rows for one in make_prompts(each, tokenizer, context, "rows")]
    asked = {
        "learning_rate_multiplier": float(run.rate),
        "batch_size": min(run.task.batch_size, len(material.train)),
        "max_completion_tokens": run.task.max_tokens,
        **({} if run.n_epochs is None else {"n_epochs": run.n_epochs}),
        **dict(run.more),
    }
    facts = Facts(int(shape["hidden_size"]), context, max(lengths), len(rows[0]), len(rows[1]))
    return resolve_train(
        {"type": "reinforcement", "reinforcement": {"hyperparameters": asked}},
        facts,
        model=run.task.model,
        model_path=str(model),
        seed=seed_of("job", run.data.name, run.seed) % 2**31,
        resources={"processes": 1},
    )


def run_ours(
    run: Run, material: Material, model: Path, work: Path, listener: Listener | None = None
) -> Outcome:
    """Trains one job and tells which model it delivers."""
    config = config_of(run, material, model)
    listener = listener or Listener()
    rows = _split(config, rows_of(material.train), rows_of(material.valid))
    grader = JobGrader(run.data, run.seed)
    start, spent = time.perf_counter(), time.process_time()
    try:
        result = train(config, *rows, grader, listener, work)
    except EngineError as error:
        found = _failed(error)
    else:
        found = _succeeded(result, has_rows=bool(rows[1]))
    found.facts |= {
        "seconds": round(time.perf_counter() - start, 3),
        "cpu_seconds": round(time.process_time() - spent, 3),
        "steps": listener.last_step,
        "total_steps": config.total_steps(len(rows[0])),
        "learning_rate": config.learning_rate,
        "actions": listener.actions,
        "notes": listener.notes[-SHOWN_NOTES:],
        "job_kl": [round(saved.kl, 4) for saved in listener.checkpoints],
    }
    return found


def _split(config: Any, train_rows: list[Row], valid_rows: list[Row]) -> tuple[list[Row], list[Row]]:
    """Holds out what the config says, as a job does; an engine before 0.2 knows no such thing."""
    share = getattr(config, "validation_split", 0.0)
    if not share:
        return train_rows, valid_rows
    from methods.hold_out import hold_out

    return hold_out(train_rows, share, config.seed)


def _failed(error: EngineError) -> Outcome:
    """A job that fails delivers nothing: its user stays with the base."""
    code = getattr(error, "code", type(error).__name__)
    facts = {"status": "failed", "verdict": f"failed: {code}", "said": str(error)[:300], "best_step": 0}
    return Outcome({"delivered": None}, facts)


def _succeeded(result: Any, *, has_rows: bool) -> Outcome:
    best = result.best
    model = partial(load, best.folder / "model") if best.step > 0 else None
    verdict = getattr(result, "verdict", None)
    if verdict is None:  # an engine that gives none delivers what it holds for better, or the last step
        kind = "not distinguishable" if model is None else "better" if has_rows else "not measured"
        said = kind
    else:
        kind, said = str(verdict.kind), str(verdict.sentence)
    facts = {"status": "succeeded", "verdict": kind, "said": said, "best_step": best.step}
    return Outcome({"delivered": model}, facts)


def _plain(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Numbers and texts as JSON has them."""
    return {
        name: (str(value) if isinstance(value, float) and not math.isfinite(value) else value)
        for name, value in figures.items()
        if isinstance(value, int | float | str | None)
    }
