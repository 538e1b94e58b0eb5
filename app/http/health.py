"""/healthz says that the process runs, /readyz that it can do its work."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait
from threading import Lock
from typing import Any

import structlog
from fastapi import APIRouter
from fastapi.responses import JSONResponse

from app.db import get_engine
from app.migrate import is_at_head
from app.queue import BROKER_SECONDS, get_celery
from app.sandbox import sandbox_level, sandbox_settings
from app.settings import get_settings

log = structlog.get_logger(__name__)
router = APIRouter(include_in_schema=False)

UNREACHABLE = "unreachable"
CHECK_SECONDS = 1.5
"""How long a part may take: who asks often waits two or three seconds, then takes the service for dead."""
KEPT_SECONDS = 1.0
"""How long a result holds: anybody may ask, and asking costs two connections."""


class Readiness:
    """Checks what the service needs, at most once a second, each part on a thread of its own."""

    def __init__(self, parts: Mapping[str, Callable[[], str]]) -> None:
        self._parts = parts
        self._threads = ThreadPoolExecutor(len(parts), "readiness")
        self._lock = Lock()
        self._checked = float("-inf")
        self._under_way: dict[str, Future[str]] = {}
        self._found: dict[str, str] = {}

    def checks(self) -> dict[str, str]:
        """Returns each part with "ok" or what is wrong with it, without details that help an attacker."""
        with self._lock:
            if time.monotonic() - self._checked > KEPT_SECONDS:
                self._found = self._check_all()
                self._checked = time.monotonic()
            return self._found

    def _check_all(self) -> dict[str, str]:
        """Asks every part, except those that have not yet answered an earlier question."""
        for name, check in self._parts.items():
            if name not in self._under_way or self._under_way[name].done():
                self._under_way[name] = self._threads.submit(_outcome, name, check)
        wait(self._under_way.values(), CHECK_SECONDS)
        return {name: self._outcome_of(name) for name in self._parts}

    def _outcome_of(self, name: str) -> str:
        if not self._under_way[name].done():
            log.warning("not_ready", part=name, problem=f"no answer within {CHECK_SECONDS} s")
            return UNREACHABLE
        return self._under_way[name].result()


@router.get("/healthz")
def healthz() -> dict[str, str]:
    return {"status": "ok"}


@router.get("/readyz")
def readyz() -> JSONResponse:
    checks = readiness.checks()
    is_ready = set(checks.values()) == {"ok"}
    content = {
        "status": "ok" if is_ready else "unavailable",
        "checks": checks,
        "sandbox": sandbox_level(sandbox_settings(get_settings())),
    }
    return JSONResponse(content, status_code=200 if is_ready else 503)


def _database() -> str:
    with get_engine().connect() as connection:
        return "ok" if is_at_head(connection) else "not migrated: run `cherry migrate`"


def _broker() -> str:
    with get_celery().connection_for_write() as connection:
        retries: dict[str, Any] = {"max_retries": 1, "interval_start": 0.1, "interval_step": 0}
        connection.ensure_connection(timeout=BROKER_SECONDS, **retries)
    return "ok"


def _outcome(part: str, check: Callable[[], str]) -> str:
    try:
        return check()
    except Exception as problem:  # whatever it is, the part cannot be used
        log.warning("not_ready", part=part, problem=str(problem))
        return UNREACHABLE


PARTS: Mapping[str, Callable[[], str]] = {"database": _database, "broker": _broker}
readiness = Readiness(PARTS)
