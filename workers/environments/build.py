"""Builds the environment of a job from its tools and its simulated user, with what the service lets them
reach.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from app.grading.patience import Gate
from app.grading.services import grader_services
from app.outbound import outbound_client, rules_of
from app.settings import get_settings
from app.tools.service import opened
from app.tools.simulator import asked_of
from graders.services import Judge
from graders.template import Template
from workers.environments.http_tools import SECONDS, HttpTool
from workers.environments.python_tools import PythonTool
from workers.environments.tool import Tool
from workers.environments.tools import ToolEnvironment
from workers.environments.user_simulator import UserSimulator
from workers.training.episodes.environment import Environment


def environment_of(block: Mapping[str, Any], project_id: str) -> partial[Environment] | None:
    """Returns what makes the environment of a job, in any process; None where completions have one turn.

    `block` is what the job keeps of a reinforcement method. Raises `ToolsUnreadable`.
    """
    tools, simulator = block.get("tools", ()), block.get("environment")
    if not tools and simulator is None:
        return None
    return partial(job_environment, opened(tools, project_id, get_settings()), simulator, project_id)


def job_environment(
    tools: Sequence[Mapping[str, Any]],
    simulator: Mapping[str, Any] | None,
    project_id: str,
    judge: Judge | None = None,
) -> Environment:
    """Returns the environment of tools with opened headers, and of a simulated user where there is one.

    `judge` is asked in the place of the project's own judges.
    """
    made = tool_environment(tools, project_id)
    if simulator is None:
        return made
    target, sampling = asked_of(simulator)
    judge = judge or grader_services(project_id).judge
    assert judge is not None, "this service asks judges"
    instructions = Template.parse(simulator["instructions"])
    return UserSimulator(target, instructions, sampling, simulator["stop"], judge, made)


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
