"""The process of one attempt at claimed work: what it is told, how it ends. Its worker is attended.py."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable
from typing import NoReturn

import structlog
from sqlalchemy.exc import SQLAlchemyError

import app.tables  # noqa: F401  # foreign keys are found by table name
from app.db import limit_statements
from app.logs import configure_logging
from app.settings import get_settings
from workers.jobs.faults import Exit

log = structlog.get_logger(__name__)


def run(kind: str, id_name: str, work: Callable[[str, int, str], None], lost: type[Exception]) -> NoReturn:
    """Does the work that the command line names, and ends the process with the code that tells how it ended.

    `work` takes the row's id, the attempt and the project, writes its own outcome, and raises `lost` where
    the row is not its own any more: by a cancel, or because another worker has it. `kind` and `id_name` are
    what logs call the row and its id.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("row")
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--project", required=True)
    given = parser.parse_args()
    settings = get_settings()
    configure_logging(settings.log_level, settings.log_format)
    limit_statements(settings.database_work_limit)
    structlog.contextvars.bind_contextvars(**{id_name: given.row, "attempt": given.attempt})
    code = Exit.OUTCOME_WRITTEN
    try:
        work(given.row, given.attempt, given.project)
    except lost:
        code = Exit.LEASE_LOST
    except SQLAlchemyError:
        log.exception(f"{kind}_broke_off")
        code = Exit.DATABASE_AWAY
    sys.stdout.flush()
    os._exit(code)  # replies that nobody waits for any more may still be on their way, on threads
