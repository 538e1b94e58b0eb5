"""One attempt at a regrade, in a process of its own.

`python -m workers.regrades.run REGRADE --attempt N --project PROJECT`
"""

from __future__ import annotations

from app.db import unit_of_work
from app.jobs.leases import Claim, LeaseLost
from app.regrades.runs import LEASES
from workers import attempted
from workers.jobs.job_data import JobInvalid
from workers.regrades.carrying_out import carry_out


def attempt(regrade_id: str, number: int, project_id: str) -> None:
    """Carries a claimed regrade out and writes its outcome. Raises `LeaseLost`."""
    claim = Claim(regrade_id, number, project_id)
    try:
        carry_out(claim)
    except JobInvalid as fault:
        with unit_of_work() as db:
            LEASES.finish_failed(db, claim, fault.code, fault.message)


if __name__ == "__main__":
    attempted.run("regrade", "regrade_id", attempt, LeaseLost)
