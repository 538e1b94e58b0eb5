"""Makes one job, and keeps the curve that tells how it went."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.stability.datasets import TEST_ROWS
from benchmarks.stability.engine import Listener, config_of, run_ours
from benchmarks.stability.evaluation import Judge
from benchmarks.stability.material import material_of
from benchmarks.stability.models import Models
from benchmarks.stability.plan import Run
from methods import metrics as names
from workers.training.trust.kl_control import KlController

CURVE = {
    "kl": names.KL_PROBE_MEAN,
    "valid": names.VALID_REWARD_MEAN,
    "canary": names.CANARY_OVER_BASE,
}
"""What the curve keeps of each evaluation."""


class Curve(Listener):
    """Keeps what each evaluation found, and how many completions were trained on since the one before.

    Attributes:
        base_entropy: nats per token, at the first update; None before.
        completions: graded in training, all together.
    """

    def __init__(self) -> None:
        super().__init__()
        self.points: list[dict[str, float]] = []
        self.base_entropy: float | None = None
        self.completions = 0
        self._beta = 0.0

    def metrics(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        super().metrics(step, epoch, values)
        self.completions += int(values.get(names.GRADES_COUNT.format(split="train"), 0))
        self._beta = float(values.get(names.BETA, self._beta))
        if self.base_entropy is None:
            self.base_entropy = values.get(names.ENTROPY_MEAN)
        if names.VALID_REWARD_MEAN in values:
            found = {name: round(float(values[key]), 4) for name, key in CURVE.items() if key in values}
            point = {"step": step, **found, "beta": round(self._beta, 4), "completions": self.completions}
            self.points.append(point)


class Makes:
    """Makes jobs one after another in this process."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._models = Models(folder)
        self._judge = Judge(kl_rows=TEST_ROWS)

    def make(self, run: Run) -> dict[str, Any]:
        """Returns the result of a job, as a results file holds it."""
        material, model, curve = material_of(run), self._models.folder_of(run.task.model), Curve()
        with tempfile.TemporaryDirectory(dir=self._folder) as work:
            outcome = run_ours(run, material, model, Path(work), curve)
            judged = self._judge.judge(run, material, model, outcome.models)
        config = config_of(run, material, model)
        target = KlController(base_entropy=curve.base_entropy).target(config)
        facts = {
            "kl_target": round(target, 4),
            "completions": curve.completions,
            "full_step": config.prompts_per_step * config.group_size,
            "curve": curve.points,
        }
        return {**outcome.facts, **facts, "models": judged}
