"""What an attempt leaves to the next one when its passes were too large."""

from __future__ import annotations

import pytest
from sqlalchemy.orm import Session

from app.jobs.status import Claim
from app.storage import get_storage
from tests.workers.rows import make_job
from workers.jobs import delivery, leftovers, smaller_passes
from workers.jobs.faults import Exit
from workers.jobs.run import _crashed
from workers.training.base.errors import PassTooLarge


@pytest.fixture
def job_id(db: Session) -> str:
    job = make_job(db, status="running", attempt=1)
    db.commit()
    return job.id


def test_attempts_begin_with_what_those_before_have_left(job_id: str) -> None:
    first, second, third, fourth = (Claim(job_id, attempt, "running") for attempt in (1, 2, 3, 4))
    assert smaller_passes.carry_on(first) is None
    assert _crashed(first, PassTooLarge("A pass ran out of memory.", 8192)) is Exit.CRASHED
    assert delivery.last_words(first) == "A pass ran out of memory"
    assert smaller_passes.carry_on(second) == 8192
    _crashed(second, PassTooLarge("A pass ran out of memory.", 4096))
    assert smaller_passes.carry_on(third) == 4096
    _crashed(third, ValueError("something else"))
    leftovers.remove_half_written(third)
    assert smaller_passes.carry_on(fourth) == 4096


def test_what_is_left_is_no_training_state_and_goes_with_the_attempts(job_id: str) -> None:
    smaller_passes.keep(Claim(job_id, 1, "running"), 100)
    smaller_passes.carry_on(Claim(job_id, 3, "running"))
    leftovers.remove_half_written(Claim(job_id, 3, "running"))
    assert get_storage().list_keys(f"jobs/{job_id}") == [f"jobs/{job_id}/state/passes-3/tokens.txt"]
