"""One attempt at a regrade, in a process of its own.

`python -m workers.regrades.run REGRADE --attempt N --project PROJECT`
"""

from __future__ import annotations

import argparse
import os
import sys

import structlog
from sqlalchemy.exc import SQLAlchemyError

import app.tables  # noqa: F401  # foreign keys are found by table name
from app.db import limit_statements, unit_of_work
from app.jobs.leases import Claim, LeaseLost
from app.logs import configure_logging
from app.regrades.runs import LEASES
from app.settings import get_settings
from workers.jobs.faults import Exit
from workers.jobs.job_data import JobInvalid
from workers.regrades.carrying_out import carry_out

log = structlog.get_logger(__name__)


def main() -> int:
    """Carries a claimed regrade out and writes its outcome. Returns the exit code of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("regrade")
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--project", required=True)
    given = parser.parse_args()
    settings = get_settings()
    configure_logging(settings.log_level, settings.log_format)
    limit_statements(settings.database_work_limit)
    structlog.contextvars.bind_contextvars(regrade_id=given.regrade, attempt=given.attempt)
    try:
        _carry_out(Claim(given.regrade, given.attempt, given.project))
    except LeaseLost:  # cancelled meanwhile, or another worker has it
        return Exit.LEASE_LOST
    except SQLAlchemyError:
        log.exception("regrade_broke_off")
        return Exit.DATABASE_AWAY
    return Exit.OUTCOME_WRITTEN


def _carry_out(claim: Claim) -> None:
    try:
        carry_out(claim)
    except JobInvalid as fault:
        with unit_of_work() as db:
            LEASES.finish_failed(db, claim, fault.code, fault.message)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # gradings that nobody waits for any more may still be under way, on threads
