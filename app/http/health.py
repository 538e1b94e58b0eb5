"""/healthz says that the process runs, /readyz that it can do its work."""

from __future__ import annotations

import time
from collections.abc import Callable
from threading import Lock

import structlog
from fastapi import APIRouter
from fastapi.responses import JSONResponse

from app.db import get_engine
from app.migrate import is_at_head
from app.queue import get_celery
from app.sandbox import sandbox_level, sandbox_settings
from app.settings import get_settings

log = structlog.get_logger(__name__)
router = APIRouter(include_in_schema=False)

KEPT_SECONDS = 1.0
"""How long a result holds: anybody may ask, and asking costs two connections."""


class Readiness:
    """Checks what the service needs, at most once a second."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._checked = float("-inf")
        self._found: dict[str, str] = {}

    def checks(self) -> dict[str, str]:
        """Returns each part with "ok" or what is wrong with it, without details that help an attacker."""
        with self._lock:
            if time.monotonic() - self._checked > KEPT_SECONDS:
                self._found = {
                    "database": _outcome("database", _database),
                    "broker": _outcome("broker", _broker),
                }
                self._checked = time.monotonic()
            return self._found


readiness = Readiness()


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
        connection.ensure_connection(max_retries=1, interval_start=0.1, interval_step=0, timeout=2)
    return "ok"


def _outcome(part: str, check: Callable[[], str]) -> str:
    try:
        return check()
    except Exception as problem:  # whatever it is, the part cannot be used
        log.warning("not_ready", part=part, problem=str(problem))
        return "unreachable"
