"""Checks the environment of a job: a simulated user, or one that the operator has installed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from app.errors import BadRequest
from app.settings import get_settings
from app.table_settings import EnvironmentEntry
from app.tools import simulator
from app.tools.schemas import AnyEnvironment, NamedEnvironment
from app.tools.simulator import ENVIRONMENT
from app.validation_errors import read_as
from graders.spec import parse_grader, single_graders
from methods.train_config import NAMED

MAX_ARGS = 16 * 1024
"""Most characters of a job's arguments, as JSON. Chosen, not measured."""
TOOLS = "method.reinforcement.tools"


class EnvironmentGone(Exception):
    """Says why an environment that a job names cannot be used any more."""


def as_stored(raw: Any, project_id: str, *, has_tools: bool) -> dict[str, Any]:
    """Returns the environment of a request as a job keeps it. Raises `BadRequest`."""
    if read_as(AnyEnvironment, raw, ENVIRONMENT).type != NAMED:
        return simulator.as_stored(raw, project_id)
    asked = read_as(NamedEnvironment, raw, ENVIRONMENT)
    entry = usable(project_id).get(asked.name)
    if entry is None:
        message = f"There is no environment '{asked.name}'. {_listed(project_id)}"
        raise BadRequest(message, param=f"{ENVIRONMENT}.name", code="environment_not_found")
    if has_tools:
        message = (
            f"'{TOOLS}' are called beside a simulated user, not beside the environment '{asked.name}': it"
            " answers the calls of its own functions, which rows list. Leave one of the two out."
        )
        raise BadRequest(message, param=TOOLS, code="unsupported_parameter")
    _check_args(asked, entry)
    return asked.model_dump()


def check_graders(kept: Mapping[str, Any]) -> None:
    """Raises `BadRequest` for a grader that reads the reward of an environment where a job names none."""
    if kept.get("environment", {}).get("type") == NAMED:
        return
    for name in ("grader", "gold_grader"):
        if name in kept and any(
            one.type == "environment" for one in single_graders(parse_grader(kept[name]))
        ):
            at = f"method.reinforcement.{name}"
            message = f"'{at}' reads the reward of an environment, and the job names none in '{ENVIRONMENT}'."
            raise BadRequest(message, param=at, code="invalid_value")


def usable(project_id: str) -> dict[str, EnvironmentEntry]:
    """Returns the environments that jobs of a project may name."""
    entries = get_settings().environments
    return {name: entry for name, entry in sorted(entries.items()) if entry.is_for(project_id)}


def entry_of(environment: Mapping[str, Any], project_id: str) -> EnvironmentEntry:
    """Returns what the operator says of the environment that a job keeps. Raises `EnvironmentGone`."""
    entry = usable(project_id).get(environment["name"])
    if entry is None:
        raise EnvironmentGone(f"There is no environment '{environment['name']}' here. {_listed(project_id)}")
    return entry


def _listed(project_id: str) -> str:
    if names := list(usable(project_id)):
        return f"Environments: {', '.join(names)}."
    return "This service has none for this project: its operator installs them and sets CHERRY_ENVIRONMENTS."


def _check_args(asked: NamedEnvironment, entry: EnvironmentEntry) -> None:
    at = f"{ENVIRONMENT}.args"
    if others := sorted(asked.args.keys() - entry.job_args):
        may = ", ".join(sorted(entry.job_args)) or "none"
        message = f"The environment '{asked.name}' takes no '{others[0]}' from a job. A job may give: {may}."
        raise BadRequest(message, param=f"{at}.{others[0]}", code="unknown_parameter")
    if len(json.dumps(asked.args)) > MAX_ARGS:
        message = f"Invalid value for '{at}': it has more than {MAX_ARGS} characters as JSON."
        raise BadRequest(message, param=at, code="invalid_value")
