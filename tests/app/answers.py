"""What tests read out of answers."""

from __future__ import annotations

from typing import Any

import httpx2 as httpx


def error_of(response: httpx.Response) -> dict[str, Any]:
    """The error of an answer, which has OpenAI's form."""
    error: dict[str, Any] = response.json()["error"]
    assert set(error) - {"errors"} == {"message", "type", "param", "code"}
    assert len(error.get("errors", "two")) > 1
    assert isinstance(error["message"], str)
    assert isinstance(error["type"], str)
    return error
