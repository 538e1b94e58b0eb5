"""Builds the environment of a job from its tools, with what the service lets them reach."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from app.grading.patience import Gate
from app.grading.services import grader_services
from app.outbound import outbound_client, rules_of
from app.settings import get_settings
from workers.environments.http_tools import SECONDS, HttpTool
from workers.environments.python_tools import PythonTool
from workers.environments.tool import Tool
from workers.environments.tools import ToolEnvironment


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
