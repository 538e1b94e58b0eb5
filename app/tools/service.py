"""Checks the tools of a job, keeps what is secret of them sealed, and masks it where they are shown."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from app.errors import BadRequest, Refusals
from app.grading.headers import MASK
from app.grading.services import grader_services
from app.outbound import TargetRefused, check_url, rules_of
from app.sealing import NoSecretKey, NotOpened, Sealer
from app.settings import Settings, get_settings
from app.tools.schemas import Tool, Tools
from app.validation_errors import read_as
from graders.code.spec import check_function
from graders.types import GraderInvalid

PARAMETERS = ("arguments", "state")
"""What the function of a tool that runs here takes."""
BLOCK = "method.reinforcement"


class ToolsUnreadable(Exception):
    """Says that the secrets of a job's tools cannot be opened any more."""


def as_stored(raw: Any, project_id: str) -> list[dict[str, Any]]:
    """Returns the tools of a request as a job keeps them, without secrets. Raises `BadRequest`."""
    tools = read_as(Tools, {"tools": raw}, BLOCK).tools
    refusals = Refusals()
    names = [tool.name for tool in tools]
    for number, tool in enumerate(tools):
        at = f"{BLOCK}.tools[{number}]"
        with refusals:
            if tool.name in names[:number]:
                raise _invalid(f"{at}.name", f"another tool is called '{tool.name}' too.")
            _check(tool, at, project_id)
    refusals.raise_any()
    return [_sealed(tool, f"{BLOCK}.tools[{n}].headers", project_id) for n, tool in enumerate(tools)]


def opened(tools: Sequence[Mapping[str, Any]], project_id: str, settings: Settings) -> list[dict[str, Any]]:
    """Returns the tools that were sealed. Raises `ToolsUnreadable`."""

    def open_(value: str) -> str:
        try:
            return Sealer(settings).open(base64.b64decode(value), _owner(project_id)).decode()
        except (NoSecretKey, NotOpened) as problem:
            raise ToolsUnreadable(f"The headers of its tools cannot be read: {problem}") from None

    return [_with_headers(tool, open_) for tool in tools]


def masked(tools: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Returns the tools as they are shown."""
    return [_with_headers(tool, lambda _: MASK) for tool in tools]


def _check(tool: Tool, at: str, project_id: str) -> None:
    if (tool.server_url is None) == (tool.python is None):
        raise _invalid(at, "give either 'server_url', or 'python' with the function itself.")
    for name, value in (tool.headers or {}).items():
        if value == MASK:
            raise _invalid(f"{at}.headers", f"'{name}' is masked, as this service shows it: give its value.")
    if tool.server_url is not None:
        try:
            check_url(tool.server_url, rules_of(get_settings()))
        except TargetRefused as refused:
            raise _invalid(f"{at}.server_url", str(refused)) from None
        return
    if tool.headers is not None:
        raise _invalid(f"{at}.headers", "a tool that runs here is sent none.")
    _check_python(tool, at, project_id)


def _check_python(tool: Tool, at: str, project_id: str) -> None:
    sandbox = grader_services(project_id).sandbox
    missing = "there is no sandbox here" if sandbox is None else sandbox.why_not()
    if missing is not None:
        message = f"A tool of Python runs in a sandbox that holds, and here it does not: {missing}"
        raise BadRequest(message, param=f"{at}.python", code="python_grader_unavailable")
    if not tool.name.isidentifier():
        raise _invalid(f"{at}.name", f"no function of Python can be called '{tool.name}'.")
    try:
        check_function(tool.python or "", tool.name, PARAMETERS)
    except GraderInvalid as fault:
        raise _invalid(f"{at}.python", fault.message) from None


def _invalid(param: str, why: str) -> BadRequest:
    return BadRequest(f"Invalid value for '{param}': {why}", param=param, code="invalid_value")


def _sealed(tool: Tool, at: str, project_id: str) -> dict[str, Any]:
    def seal(value: str) -> str:
        try:
            return base64.b64encode(Sealer(get_settings()).seal(value.encode(), _owner(project_id))).decode()
        except NoSecretKey as problem:
            message = f"Headers of a tool are kept encrypted, and this service cannot: {problem}"
            raise BadRequest(message, param=at, code="unsupported_parameter") from None

    return _with_headers(tool.model_dump(exclude_none=True), seal)


def _with_headers(tool: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Returns a copy with every header's value changed."""
    if not tool.get("headers"):
        return dict(tool)
    return {**tool, "headers": {name: change(value) for name, value in tool["headers"].items()}}


def _owner(project_id: str) -> str:
    return f"tool headers of {project_id}"
