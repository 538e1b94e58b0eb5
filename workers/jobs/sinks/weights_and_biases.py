"""Shows a run at Weights & Biases; a job that is resumed goes on with the same run there.

The account is the operator's: `WANDB_API_KEY` in the worker's environment, or `WANDB_MODE=offline`, which
writes the run's folder below the working folder for `wandb sync`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from workers.jobs.sinks.base import ShownRun, Unavailable, tags

STEP = "job_step"


class WeightsAndBiases:
    """One run there. Raises `Unavailable` where the package or the account is missing."""

    def __init__(self, run: ShownRun) -> None:
        if not os.environ.get("WANDB_API_KEY") and os.environ.get("WANDB_MODE") != "offline":
            raise Unavailable("the worker has neither WANDB_API_KEY nor WANDB_MODE=offline.")
        try:
            import wandb
        except ImportError:
            raise Unavailable("its package `wandb` is not installed on the worker.") from None
        quiet = wandb.Settings(
            silent=True, console="off", disable_git=True, disable_code=True, x_disable_meta=True
        )
        self._run = wandb.init(
            id=run.job_id,
            resume="allow",
            project=run.wanted["project"],
            entity=run.wanted.get("entity"),
            name=run.wanted.get("name") or run.job_id,
            tags=tags(run),
            config=run.shown_config,
            dir=str(run.folder("wandb")),
            settings=quiet,
        )
        self._is_in_order = run.is_in_order
        self._first = self._run.step
        if not self._is_in_order:
            self._run.define_metric(STEP)
            self._run.define_metric("*", step_metric=STEP)

    def has(self, step: int) -> bool:
        """Says whether the step lies below where the run goes on; offline that is not known."""
        return self._is_in_order and step < self._first

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Hands the numbers to the library, which sends them by itself."""
        if self._is_in_order:
            self._run.log(dict(values), step=step)
        else:  # its own steps only rise
            self._run.log({STEP: step, **values})

    def close(self) -> None:
        """Waits until the library has sent everything."""
        self._run.finish()
