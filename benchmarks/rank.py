"""Does a reward relative to the group train as well as the exact one? `make bench-rank`.

Each pair is two jobs with the same rows and seed on a story task: one is graded exactly, the other by `rank`,
whose judge is a server that knows what an answer is worth. A group of 12 is more than one call shows, so
groups are split. What both have learnt is measured exactly, on rows that neither has trained on.
"""

from __future__ import annotations

import argparse
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

from benchmarks.stability.datasets import LETTERS, PLAY, Task, Worth
from benchmarks.stability.material import rows_of
from benchmarks.stability.models import Models
from benchmarks.stability.prompts import Item, different
from graders import Grade, Grader, Sample
from methods import metrics as names

SEEDS, TRAIN_ROWS, VALID_ROWS = 3, 40, 20
STEPS, GROUP, MAX_ANSWERS = 15, 12, 8
SETTINGS: dict[str, Any] = {
    "model": "stories",
    "n_epochs": STEPS // (TRAIN_ROWS // 8),
    "prompts_per_step": 8,
    "group_size": GROUP,
    "max_completion_tokens": 24,
    "learning_rate": 2e-3,
    "lora_rank": 8,
    "lora_alpha": 16.0,
    "eval_interval": STEPS,
    "eval_samples": 4,
    "eval_temperature": 1.0,
    "save_state_every": STEPS,
    "early_stop": False,
    "device": "cpu",
}
"""As for the story model in docs/benchmarks.md, but few steps: both are compared on their way up."""
TASKS = {"letters": (LETTERS, "early_letters"), "play": (PLAY, "play")}
"""The task, and the judge's name of what an answer is worth (tests/judging/worth.py)."""


class Exact:
    """Grades by what an answer is worth."""

    type = "python"
    name = "exact"

    def __init__(self, worth: Worth) -> None:
        self._worth = worth

    def grade(self, sample: Sample, item: Mapping[str, Any]) -> Grade:
        """Returns the worth."""
        return Grade(self._worth(sample.output_text, dict(item)))


class Learnt(NamedTuple):
    """Holds the exact reward of a run's unseen rows, before and after, and what its judge was asked."""

    base: float
    rows: list[float]
    calls: float
    seconds: float


class Heard:
    """A recorder that keeps the exact rewards of the rows that checkpoints are judged by."""

    def __init__(self, worth: Worth) -> None:
        self.rows: dict[int, list[float]] = {}
        self.calls = 0.0
        self._worth = worth

    def metrics(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:  # noqa: ARG002
        self.calls = values.get(names.TOTAL_USAGE.format(kind="calls", model="judge"), 0.0)

    def rollouts(self, split: str, step: int, epoch: int, groups: Sequence[Any]) -> None:  # noqa: ARG002
        if split == "valid":
            self.rows[step] = [
                fmean(self._worth(one.text, dict(group.prompt.item)) for one in group.completions)
                for group in groups
            ]

    def note(self, level: str, message: str) -> None:
        if level == "warn":
            print(f"  {message}"[:200], file=sys.stderr)

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def learnt(task: Task, seed: int, grader: Grader, model: Path) -> Learnt:
    """Trains one job."""
    from methods.train_config import TrainConfig
    from workers.training.loop import train

    items = _items(task, seed)
    rows = rows_of(items[:TRAIN_ROWS]), rows_of(items[TRAIN_ROWS:])
    heard, started = Heard(task.worth), time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="rank-") as folder:
        config = TrainConfig(**SETTINGS, seed=seed, model_path=str(model))
        train(config, *rows, grader, heard, Path(folder))
    seconds = time.perf_counter() - started
    return Learnt(fmean(heard.rows[0]), heard.rows[STEPS], heard.calls, seconds)


def _items(task: Task, seed: int) -> list[Item]:
    import random

    return different(task.draw, TRAIN_ROWS + VALID_ROWS, random.Random(seed))


def rank_at(base_url: str) -> Grader:
    """Returns a rank grader whose judge is at that address."""
    from app.grading.judges import Judges, TenantJudge
    from graders import build_grader, parse_grader
    from graders.services import Services
    from tests.app.grading.judge_servers import settings_with

    judges = Judges(settings_with(judges={"judge": {"base_url": base_url, "concurrency": 16}}))
    spec = parse_grader({"type": "rank", "name": "rank", "model": "judge", "max_answers": MAX_ANSWERS})
    return build_grader(spec, Services(judge=TenantJudge(judges, "bench")))


def main() -> int:
    """Prints a line for each pair and what holds over all; returns 1 where the bar is missed."""
    import torch

    from tests.judging import running_judge

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=SEEDS)
    seeds = parser.parse_args().seeds
    os.environ["TQDM_DISABLE"] = "1"
    torch.set_num_threads(1)
    differences: list[float] = []
    print("| task | seed | base | exact | rank | difference | calls |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="rank-model-") as folder:
        model = Models(Path(folder)).folder_of("stories")
        for name, (task, worth) in TASKS.items():
            with running_judge("exact", worth=f"tests.judging.worth:{worth}") as judge:
                for seed in range(1, seeds + 1):
                    exact = learnt(task, seed, Exact(task.worth), model)
                    ranked = learnt(task, seed, rank_at(judge.base_url), model)
                    found = [b - a for a, b in zip(exact.rows, ranked.rows, strict=True)]
                    differences.append(fmean(found))
                    figures = (exact.base, fmean(exact.rows), fmean(ranked.rows))
                    told = " | ".join(f"{figure:.3f}" for figure in figures)
                    print(
                        f"| {name} | {seed} | {told} | {fmean(found):+.3f} | {ranked.calls:.0f} |", flush=True
                    )
    mean, error = fmean(differences), stdev(differences) / math.sqrt(len(differences))
    print(f"\nRank less exact: {mean:+.4f}, standard error over the pairs {error:.4f}.")
    return int(mean < -error)


if __name__ == "__main__":
    sys.exit(main())
