"""Builds the environment of a job: its tools and its simulated user, with what the service lets them reach,
or the one of the operator's that it names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from app.grading.patience import Gate
from app.grading.services import grader_services
from app.outbound import outbound_client, rules_of
from app.settings import get_settings
from app.tools.environments import EnvironmentGone, entry_of
from app.tools.service import opened
from app.tools.simulator import asked_of
from graders.services import Judge
from graders.template import Template
from methods.train_config import NAMED
from workers.environments.http_tools import SECONDS, HttpTool
from workers.environments.named.environment import NamedEnvironment
from workers.environments.named.surroundings import hidden_paths
from workers.environments.python_tools import PythonTool
from workers.environments.tool import Tool
from workers.environments.tools import ToolEnvironment
from workers.environments.user_simulator import UserSimulator
from workers.training.base.errors import RunFailed
from workers.training.episodes.environment import Environment


class EnvironmentMissing(RunFailed):
    """The operator has taken away the environment that the job names."""

    code = "environment_not_found"


def environment_of(block: Mapping[str, Any], project_id: str) -> partial[Environment] | None:
    """Returns what makes the environment of a job, in any process; None where completions have one turn.

    `block` is what the job keeps of a reinforcement method. Raises `ToolsUnreadable`.
    """
    tools, environment = block.get("tools", ()), block.get("environment")
    if not tools and environment is None:
        return None
    return partial(job_environment, opened(tools, project_id, get_settings()), environment, project_id)


def job_environment(
    tools: Sequence[Mapping[str, Any]],
    environment: Mapping[str, Any] | None,
    project_id: str,
    judge: Judge | None = None,
) -> Environment:
    """Returns the environment of tools with opened headers, of a simulated user, or the one that is named.

    `judge` is asked in the place of the project's own judges. Raises `EnvironmentMissing`.
    """
    if environment is not None and environment["type"] == NAMED:
        return named_environment(environment, project_id)
    made = tool_environment(tools, project_id)
    return made if environment is None else _with_user(made, environment, project_id, judge)


def named_environment(environment: Mapping[str, Any], project_id: str) -> NamedEnvironment:
    """Returns the environment of the operator's that a job names. Raises `EnvironmentMissing`."""
    try:
        entry = entry_of(environment, project_id)
    except EnvironmentGone as gone:
        raise EnvironmentMissing(str(gone)) from None
    hidden = hidden_paths(get_settings())
    return NamedEnvironment(environment["name"], entry, environment["args"], hidden)


def _with_user(
    tools: ToolEnvironment, simulator: Mapping[str, Any], project_id: str, judge: Judge | None
) -> UserSimulator:
    target, sampling = asked_of(simulator)
    judge = judge or grader_services(project_id).judge
    assert judge is not None, "this service asks judges"
    instructions = Template.parse(simulator["instructions"])
    return UserSimulator(target, instructions, sampling, simulator["stop"], judge, tools)


def tool_environment(tools: Sequence[Mapping[str, Any]], project_id: str) -> ToolEnvironment:
    """Returns the environment of tools as they were asked for, with their headers opened."""
    settings = get_settings()
    client = outbound_client(rules_of(settings), total_seconds=SECONDS)
    gates = {tool.get("server_url"): Gate(settings.tool_concurrency) for tool in tools}
    sandbox = grader_services(project_id).sandbox
    made: dict[str, Tool] = {}
    for tool in tools:
        name = tool["name"]
        if "python" in tool:
            assert sandbox is not None, "the request was checked"
            made[name] = PythonTool(name, tool["python"], sandbox)
        else:
            url = tool["server_url"]
            made[name] = HttpTool(name, url, client, gates[url], tool.get("headers") or {})
    return ToolEnvironment(made)
