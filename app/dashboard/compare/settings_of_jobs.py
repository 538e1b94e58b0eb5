"""Holds the settings of jobs side by side: those that differ, and those that are equal."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from app.grading.headers import masked
from app.jobs.models import Job
from app.tools.service import masked as masked_tools

HIDDEN = ("model_path", "origin_path", "grader", "gold_grader", "tools", "environment")
"""Of a resolved configuration: folders of a machine, and what is shown as the job was asked for it."""
GRADERS = ("grader", "gold_grader")


class Setting(NamedTuple):
    """One setting and its value in each job, as text; nothing where a job has none."""

    name: str
    values: list[str]


class Settings(NamedTuple):
    """Settings in which the jobs differ, and those in which they do not."""

    different: list[Setting]
    equal: list[Setting]


def settings_of(jobs: Sequence[Job]) -> Settings:
    """Returns all settings of the jobs, each in one of the two lists, in the order of the first job."""
    flat = [_settings(job) for job in jobs]
    names = list(dict.fromkeys(name for each in flat for name in each))
    found = [Setting(name, [each.get(name, "") for each in flat]) for name in names]
    different = [setting for setting in found if len(set(setting.values)) > 1]
    return Settings(different, [setting for setting in found if len(set(setting.values)) == 1])


def _settings(job: Job) -> dict[str, str]:
    block: Mapping[str, Any] = job.method.get(job.method["type"]) or {}
    asked = {name: value for name, value in block.items() if name != "hyperparameters"}
    for name in GRADERS:
        if asked.get(name):
            asked[name] = masked(asked[name])
    if asked.get("tools"):
        asked["tools"] = masked_tools(asked["tools"])
    own = {
        "model": job.model,
        "method": job.method["type"],
        "training_file": job.training_file,
        "validation_file": job.validation_file,
        "seed": job.seed,
        **asked,
    }
    resolved = {name: value for name, value in (job.config or {}).items() if name not in HIDDEN}
    return dict(_flat({**resolved, **own}))


def _flat(value: Mapping[str, Any], above: str = "") -> list[tuple[str, str]]:
    found = []
    for name, one in value.items():
        whole = f"{above}.{name}" if above else name
        if isinstance(one, Mapping) and one:
            found += _flat(one, whole)
        elif one is not None:
            found.append((whole, one if isinstance(one, str) else json.dumps(one, ensure_ascii=False)))
    return found
