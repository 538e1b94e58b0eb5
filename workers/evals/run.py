"""One attempt at a run of an eval, in a process of its own.

`python -m workers.evals.run RUN --attempt N --project PROJECT`
"""

from __future__ import annotations

import argparse
import os
import sys

import structlog
from sqlalchemy.exc import SQLAlchemyError

import app.tables  # noqa: F401  # foreign keys are found by table name
from app.db import limit_statements, unit_of_work
from app.evals import runs
from app.evals.runs import Claim, LeaseLost
from app.logs import configure_logging
from app.settings import get_settings
from workers.evals.carrying_out import carry_out
from workers.evals.faults import RunInvalid
from workers.jobs.faults import Exit

log = structlog.get_logger(__name__)


def main() -> int:
    """Carries a claimed run out and writes its outcome. Returns the exit code of the process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run")
    parser.add_argument("--attempt", type=int, required=True)
    parser.add_argument("--project", required=True)
    given = parser.parse_args()
    settings = get_settings()
    configure_logging(settings.log_level, settings.log_format)
    limit_statements(settings.database_work_limit)
    structlog.contextvars.bind_contextvars(run_id=given.run, attempt=given.attempt)
    claim = Claim(given.run, given.attempt, given.project)
    try:
        _carry_out(claim)
    except LeaseLost:  # cancelled meanwhile, or another worker has it
        return Exit.LEASE_LOST
    except SQLAlchemyError:
        log.exception("eval_run_broke_off")
        return Exit.DATABASE_AWAY
    return Exit.OUTCOME_WRITTEN


def _carry_out(claim: Claim) -> None:
    try:
        carry_out(claim)
    except RunInvalid as fault:
        with unit_of_work() as db:
            runs.finish_failed(db, claim, fault.code, fault.message)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    os._exit(code)  # answers that nobody waits for any more may still be on their way, on threads
