"""Changes to a request for a job, and to what this service grants."""

from __future__ import annotations

from typing import Any

import pytest

from app.settings import get_settings

HYPER = "method.reinforcement.hyperparameters"


def changed(body: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """The body with one thing set; dots lead down."""
    head, _, rest = path.partition(".")
    return {**body, head: changed(body.get(head, {}), rest, value) if rest else value}


def allow_processes(monkeypatch: pytest.MonkeyPatch, most: int) -> None:
    monkeypatch.setenv("CHERRY_MAX_PROCESSES", str(most))
    get_settings.cache_clear()
