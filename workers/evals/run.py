"""One attempt at a run of an eval, in a process of its own.

`python -m workers.evals.run RUN --attempt N --project PROJECT`
"""

from __future__ import annotations

from app.db import unit_of_work
from app.evals import runs
from app.evals.runs import Claim, LeaseLost
from workers import attempted
from workers.evals.carrying_out import carry_out
from workers.evals.faults import RunInvalid


def attempt(run_id: str, number: int, project_id: str) -> None:
    """Carries a claimed run out and writes its outcome. Raises `LeaseLost`."""
    claim = Claim(run_id, number, project_id)
    try:
        carry_out(claim)
    except RunInvalid as fault:
        with unit_of_work() as db:
            runs.finish_failed(db, claim, fault.code, fault.message)


if __name__ == "__main__":
    attempted.run("eval_run", "run_id", attempt, LeaseLost)
