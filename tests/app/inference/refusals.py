"""Bodies that inference endpoints refuse, tried one by one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import httpx2 as httpx
import pytest

from tests.app.answers import error_of

Refused = Mapping[str, tuple[Mapping[str, Any], str | None, str]]
"""By name: what is changed in a good body, and the error's param and code."""


def check_refused(
    http: httpx.Client, path: str, good: Mapping[str, Any], refused: Refused, subtests: pytest.Subtests
) -> None:
    """Each change makes the body a 400 with its param and code."""
    for name, (change, param, code) in refused.items():
        with subtests.test(name):
            response = http.post(path, json={**good, **change})
            told = error_of(response)
            assert (response.status_code, told["param"], told["code"]) == (400, param, code), told
