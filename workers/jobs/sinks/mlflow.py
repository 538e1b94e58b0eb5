"""Shows a run at an MLflow tracking server, or in the store that `MLFLOW_TRACKING_URI` names."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Any

from workers.jobs.sinks.base import ShownRun, Unavailable, numbers

JOB_TAG = "cherry.job_id"
EPOCH = "epoch"
URI = "MLFLOW_TRACKING_URI"
MAX_PARAM = 6000
"""Characters of a parameter's value that MLflow takes."""
MAX_METRICS = 1000
"""Metrics that MLflow takes at a time."""


class Mlflow:
    """One run there, found again by the job's id. Raises `Unavailable` where the package or address is
    missing."""

    def __init__(self, run: ShownRun) -> None:
        if not os.environ.get(URI):
            raise Unavailable(f"the worker has no {URI}.")
        try:
            from mlflow.entities import Metric, Param
            from mlflow.tracking import MlflowClient
        except ImportError:
            raise Unavailable("its package `mlflow-skinny` is not installed on the worker.") from None
        self._metric = Metric
        self._client: Any = MlflowClient()
        experiment = _experiment(self._client, run.wanted["experiment"])
        found = _found(self._client, experiment, run.job_id)
        self._known: set[int] = set()
        if found is None:
            self._run_id: str = self._client.create_run(
                experiment, run_name=run.name, tags={JOB_TAG: run.job_id, "cherry.model": run.model}
            ).info.run_id
            params = [Param(name, str(value)[:MAX_PARAM]) for name, value in run.shown_config.items()]
            self._client.log_batch(self._run_id, params=params[:100])
        else:
            self._run_id = found
            told = self._client.get_metric_history(self._run_id, EPOCH)
            self._known = {metric.step for metric in told}

    def has(self, step: int) -> bool:
        """Says whether the run has the step's epoch, which is sent with every step, and last."""
        return step in self._known

    def log(self, step: int, values: Mapping[str, Any]) -> None:
        """Sends the numbers; in one request, as long as they are no more than it takes."""
        at = int(time.time() * 1000)
        found = [self._metric(_safe(name), value, at, step) for name, value in numbers(values).items()]
        found.sort(key=lambda metric: metric.key == EPOCH)
        for first in range(0, len(found), MAX_METRICS):
            self._client.log_batch(self._run_id, metrics=found[first : first + MAX_METRICS])

    def close(self) -> None:
        """Ends the run; a job that is resumed goes on with it."""
        self._client.set_terminated(self._run_id)


def _experiment(client: Any, name: str) -> str:
    found = client.get_experiment_by_name(name)
    return str(client.create_experiment(name) if found is None else found.experiment_id)


def _found(client: Any, experiment: str, job_id: str) -> str | None:
    runs = client.search_runs([experiment], filter_string=f"tags.`{JOB_TAG}` = '{job_id}'", max_results=1)
    return str(runs[0].info.run_id) if runs else None


def _safe(name: str) -> str:
    """Returns a metric's name as MLflow takes it: letters, digits and `_-. :/`."""
    return "".join(letter if letter.isalnum() or letter in "_-. :/" else "_" for letter in name)
