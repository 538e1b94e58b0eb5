"""Writes the result file of a job: one row per step, from the same rows as its events."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.events.models import JobMetrics
from app.events.rft_metrics import OURS, metrics_event
from app.events.tuning_metrics import tuning_columns, tuning_row
from app.jobs.models import Job

FIRST = (
    "step",
    "train_mean_reward",
    "full_valid_mean_reward",
    "completion_tokens_mean",
    "reasoning_tokens_mean",
    "mean_unresponsive_rewards",
    "full_valid_mean_parse_error",
    *OURS,
)
"""Columns of reinforcement jobs, OpenAI's first. What graders add comes behind, flattened with `/`."""
SKIPPED = ("total_steps", "train_reward_mean", "valid_reward_mean", "valid_reasoning_tokens_mean")


def results_csv(db: Session, job: Job) -> str:
    """Returns the table as text, with an empty cell where nothing was measured."""
    steps = db.scalars(select(JobMetrics).where(JobMetrics.job_id == job.id).order_by(JobMetrics.step))
    kind = job.method["type"]
    if kind != "reinforcement":
        return _table(tuning_columns(kind), [tuning_row(each.step, each.values) for each in steps])
    grader = job.method["reinforcement"]["grader"]
    rows = [_row(metrics_event(each.step, 0, each.values, grader)[1]) for each in steps]
    more = sorted({name for row in rows for name in row} - set(FIRST))
    return _table([*FIRST, *more], rows)


def _table(columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> str:
    out = io.StringIO()
    table = csv.DictWriter(out, columns, restval="", lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return out.getvalue()


def _row(data: Mapping[str, Any]) -> dict[str, Any]:
    flat = {name: value for name, value in data.items() if isinstance(value, int | float)}
    for area in ("scores", "errors"):
        flat.update(_grader_columns(area, data[area]["graders"]))
    for tool in data.get("tools", ()):
        flat |= {f"tools/{tool['name']}/{key}": value for key, value in tool.items() if key != "name"}
    flat |= {f"timing/step/{name}": value for name, value in data["timing"]["step"].items()}
    return {name: value for name, value in flat.items() if name not in SKIPPED}


def _grader_columns(area: str, graders: list[dict[str, Any]]) -> Iterator[tuple[str, Any]]:
    for grader in graders:
        for name, value in grader.items():
            if name not in ("name", "type"):
                yield f"{area}/graders/{grader['name']}/{name}", value
