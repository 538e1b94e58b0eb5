"""The runs of docs/reading-curves.md: what each shows, and how it differs from one that learns well."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[2]
PEOPLE = ROOT / "examples" / "people"
METRICS = ("reward/mean", "reward/valid_mean", "reward/gold_mean", "kl/probe_mean", "entropy/mean")
"""What is kept of a run."""

COMMON: dict[str, Any] = {
    "model": "cherry-nano",
    "model_path": str(ROOT / "workers" / "models" / "cherry_nano"),
    "seed": 1,
    "n_epochs": 6,
    "prompts_per_step": 8,
    "group_size": 8,
    "max_completion_tokens": 96,
    "learning_rate": 5e-4,
    "beta": 0.02,
    "eval_interval": 4,
    "eval_samples": 2,
    "guard": "off",
    "early_stop": False,
    "dtype": "float32",
}


class Run(NamedTuple):
    """One run: what of `COMMON` it changes, on how many training rows, and by which grader."""

    changed: dict[str, Any]
    rows: int = 48
    grader: Any = None
    """In place of the exact grader, which then is the gold one."""


MENTIONS = {
    "type": "text_similarity",
    "name": "words",
    "evaluation_metric": "rouge_1",
    "input": "{{sample.output_text}}",
    "reference": "{{item.messages[0].content}}",
}
"""It was meant to ask whether the answer is about this person; it pays for repeating the prompt."""

RUNS = {
    "good": Run({}),
    "slow": Run({"learning_rate": 1e-5}),
    "fast": Run({"learning_rate": 2e-2, "beta": 0.0}),
    "overfit": Run({"n_epochs": 60, "prompts_per_step": 4, "beta": 0.0}, rows=4),
    "hacked": Run({}, grader=MENTIONS),
}


def make(name: str, folder: Path) -> list[dict[str, float]]:
    """Trains one run with the engine alone; returns its kept metrics, a dictionary a step."""
    run = RUNS[name]
    folder.mkdir(parents=True)
    lines = (PEOPLE / "train.jsonl").read_text("utf-8").splitlines(keepends=True)
    (folder / "train.jsonl").write_text("".join(lines[: run.rows]), "utf-8")
    exact = json.loads((PEOPLE / "grader.json").read_text("utf-8"))
    graders = {"grader": run.grader, "gold_grader": exact} if run.grader else {"grader": exact}
    for key, grader in graders.items():
        (folder / f"{key}.json").write_text(json.dumps(grader), "utf-8")
    named = {
        "train": "train.jsonl",
        "valid": str(PEOPLE / "valid.jsonl"),
        "output": "out",
        **{k: f"{k}.json" for k in graders},
    }
    settings = [f"{key} = {json.dumps(value)}" for key, value in named.items()]
    settings += [
        "[config]",
        *(f"{key} = {json.dumps(value)}" for key, value in (COMMON | run.changed).items()),
    ]
    (folder / "run.toml").write_text("\n".join(settings) + "\n", "utf-8")
    subprocess.run([sys.executable, "-m", "workers.train", str(folder / "run.toml")], cwd=ROOT, check=True)
    told = (folder / "out" / "metrics.jsonl").read_text("utf-8").splitlines()
    return [kept(json.loads(line)) for line in told]


def kept(step: dict[str, Any]) -> dict[str, float]:
    """The step's number and those of its metrics that are drawn, rounded."""
    values = step.get("values", step)
    return {"step": step["step"], **{key: round(values[key], 4) for key in METRICS if key in values}}
