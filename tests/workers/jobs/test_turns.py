"""Projects take turns: the one whose last turn was longest ago is next, its oldest job first."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import select, text
from sqlalchemy.orm import Session

from app.db import session, unit_of_work
from app.jobs import control, runs
from app.jobs.capacity import Capacity
from app.jobs.models import Job
from app.tenants.models import Project
from tests.factories import make_job, make_tenant

LEASE = timedelta(seconds=30)
HERE = Capacity(gpus=0, processes=8)
Take = Callable[[Session], str | None]


def train(db: Session) -> str | None:
    claim = runs.claim_for_training(db, "me", LEASE, HERE)
    return claim and claim.job_id


def validate(db: Session) -> str | None:
    claim = runs.claim_for_validation(db, "me", LEASE)
    return claim and claim.job_id


KINDS = [
    pytest.param(train, "queued", id="training"),
    pytest.param(validate, "validating_files", id="validation"),
]


class Work:
    """Jobs of several projects, named by their project and number: the first job of "a" is "a1"."""

    def __init__(self, db: Session, status: str, **counts: int) -> None:
        self.projects = {name: make_tenant(db, name).project_id for name in counts}
        self.names: dict[str, str] = {}
        for name, count in counts.items():
            for number in range(1, count + 1):
                self.add(db, status, name, number)
        db.commit()

    def add(self, db: Session, status: str, name: str, number: int, **columns: object) -> Job:
        job = make_job(db, self.projects[name], status=status, **columns)
        self.names[job.id] = f"{name}{number}"
        db.commit()  # created_at is the transaction's
        return job

    def taken(self, take: Take) -> str | None:
        with unit_of_work() as db:
            job_id = take(db)
        return job_id and self.names[job_id]

    def all_taken(self, take: Take) -> list[str]:
        return list(iter(lambda: self.taken(take), None))  # type: ignore[arg-type]


@pytest.mark.parametrize(("take", "status"), KINDS)
def test_projects_take_turns_and_each_has_its_oldest_job_taken(db: Session, take: Take, status: str) -> None:
    work = Work(db, status, a=4, b=2, c=1)
    assert work.all_taken(take) == ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]


@pytest.mark.parametrize(("take", "status"), KINDS)
def test_whoever_comes_new_is_next_and_whoever_comes_again_is_not(
    db: Session, take: Take, status: str
) -> None:
    work = Work(db, status, a=3, b=1, c=0)
    assert [work.taken(take), work.taken(take)] == ["a1", "b1"]
    work.add(db, status, "b", 2)
    work.add(db, status, "c", 1)
    assert work.all_taken(take) == ["c1", "a2", "b2", "a3"]


def test_the_two_queues_have_turns_of_their_own(db: Session) -> None:
    work = Work(db, "queued", a=1, b=1)
    work.add(db, "validating_files", "a", 2)
    work.add(db, "validating_files", "b", 2)
    assert [work.taken(train), work.taken(validate), work.taken(validate), work.taken(train)] == [
        "a1",
        "a2",
        "b2",
        "b1",
    ]


def test_a_new_attempt_is_a_turn_too(db: Session) -> None:
    """A job that crashes again and again takes no more than its project's share."""
    work = Work(db, "queued", a=1, b=2)
    for expected in ("a1", "b1", "a1", "b2", "a1"):
        with unit_of_work() as other:
            claim = runs.claim_for_training(other, "me", LEASE, HERE)
        assert claim
        assert work.names[claim.job_id] == expected
        if expected == "a1":
            with unit_of_work() as other:
                runs.requeue_crashed(other, claim, "a crash")


def test_a_job_that_does_not_fit_here_costs_its_project_no_turn(db: Session) -> None:
    work = Work(db, "queued", a=0, b=2)
    work.add(db, "queued", "a", 1, resources={"gpus": 8})
    work.add(db, "queued", "a", 2)
    assert work.all_taken(train) == ["b1", "a2", "b2"]


def test_a_resumed_job_keeps_its_age_within_its_project(db: Session) -> None:
    work = Work(db, "queued", a=2, b=1)
    first = next(job_id for job_id, name in work.names.items() if name == "a1")
    with unit_of_work() as other:
        control.request_pause(other, first)
    assert work.taken(train) == "a2"
    with unit_of_work() as other:
        control.request_resume(other, first)
    assert work.all_taken(train) == ["b1", "a1"]


def test_projects_passed_over_are_not_taken_from(db: Session) -> None:
    work = Work(db, "validating_files", a=2, b=1)
    with unit_of_work() as other:
        claim = runs.claim_for_validation(other, "me", LEASE, [work.projects["a"]])
        assert claim
        assert work.names[claim.job_id] == "b1"
        assert runs.claim_for_validation(other, "me", LEASE, list(work.projects.values())) is None


@pytest.mark.parametrize(("take", "status"), KINDS)
def test_a_worker_that_is_still_taking_a_job_holds_nobody_up(db: Session, take: Take, status: str) -> None:
    """Its transaction stays open: the next takes another project's job, and at last one of the same."""
    work = Work(db, status, a=2, b=1)
    with session() as slow:
        slow.execute(text("SET LOCAL lock_timeout = '2s'"))
        assert work.names[take(slow) or ""] == "a1"
        assert work.all_taken(take) == ["b1", "a2"]
        slow.commit()
    assert work.taken(take) is None


def test_many_workers_at_once_take_each_job_once_and_leave_no_project_behind(db: Session) -> None:
    work = Work(db, "queued", a=12, b=3, c=3)
    with ThreadPoolExecutor(4) as pool:
        taken = [name for name in pool.map(lambda _: work.taken(train), range(9)) if name]
    assert len(taken) == len(set(taken)) == 9
    assert sum(name[0] == "a" for name in taken) <= 5, "by strict age all nine would be of a"
    rest = work.all_taken(train)
    assert sorted(taken + rest) == sorted(work.names.values())


def test_the_claim_uses_the_index_of_claimable_jobs(db: Session) -> None:
    work = Work(db, "queued", a=1)
    over = "jsonb_build_object('id', 'ftjob-' || n, 'status', 'succeeded')"
    row = f"(jsonb_populate_record(jobs, {over})).*"
    db.execute(text(f"INSERT INTO jobs SELECT {row} FROM jobs, generate_series(1, 2000) n"))
    db.commit()
    db.execute(text("ANALYZE jobs"))
    waiting = select(Job.id).join(Project, Project.id == Job.project_id).where(runs.trainable())
    query = waiting.compile(db.get_bind(), compile_kwargs={"literal_binds": True})
    assert "ix_jobs_claimable" in "\n".join(db.scalars(text(f"EXPLAIN {query}")))
    assert work.taken(train) == "a1"
