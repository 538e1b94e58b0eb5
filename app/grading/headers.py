"""Seals the headers of `endpoint` graders, which hold secrets of users, in a job's row, and masks them where
they are shown."""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from typing import Any

from app.sealing import NoSecretKey, NotOpened, Sealer
from app.settings import Settings
from graders.types import GraderInvalid

MASK = "********"


def sealed(grader: Mapping[str, Any], project_id: str, settings: Settings) -> dict[str, Any]:
    """Returns a grader as a job of the project may keep it. Raises `GraderInvalid` where nothing can be
    sealed."""

    def seal(value: str) -> str:
        try:
            return base64.b64encode(Sealer(settings).seal(value.encode(), _owner(project_id))).decode()
        except NoSecretKey as problem:
            message = f"Headers of an endpoint grader are kept encrypted, and this service cannot: {problem}"
            raise GraderInvalid(message, param="headers", code="unsupported_parameter") from None

    return _with_headers(grader, seal)


def opened(grader: Mapping[str, Any], project_id: str, settings: Settings) -> dict[str, Any]:
    """Returns the grader that was sealed. Raises `GraderInvalid` if the operator's key is another one now."""

    def open_(value: str) -> str:
        try:
            return Sealer(settings).open(base64.b64decode(value), _owner(project_id)).decode()
        except (NoSecretKey, NotOpened) as problem:
            message = f"The headers of its endpoint cannot be read: {problem}"
            raise GraderInvalid(message, param="headers") from None

    return _with_headers(grader, open_)


def masked(grader: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a grader as it is shown."""
    return _with_headers(grader, lambda _: MASK)


def _owner(project_id: str) -> str:
    return f"grader headers of {project_id}"


def _with_headers(grader: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Returns a copy with every header's value changed."""
    if grader["type"] == "endpoint" and grader.get("headers"):
        return {**grader, "headers": {name: change(value) for name, value in grader["headers"].items()}}
    if grader["type"] != "multi":
        return dict(grader)
    parts = grader["graders"]
    if isinstance(parts.get("type"), str):  # one bare grader
        return {**grader, "graders": _with_headers(parts, change)}
    return {**grader, "graders": {key: _with_headers(part, change) for key, part in parts.items()}}
