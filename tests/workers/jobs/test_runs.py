"""Owning a job: claims, leases, fences and status moves."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest
from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app import queue
from app.db import unit_of_work
from app.events.models import JobEvent
from app.jobs import control, runs, status
from app.jobs.capacity import Capacity
from app.jobs.models import Job
from app.jobs.status import MOVES, Claim, LeaseLost, MoveRefused
from tests.workers.rows import fresh, make_job

LEASE = timedelta(seconds=30)
LARGE = Capacity(gpus=64, processes=64)


def claim(lease: timedelta = LEASE, capacity: Capacity = LARGE) -> Claim | None:
    with unit_of_work() as db:
        return runs.claim_for_training(db, "me", lease, capacity)


def expire(db: Session, job: Job) -> None:
    db.execute(update(Job).where(Job.id == job.id).values(lease_expires_at=func.now() - timedelta(seconds=1)))
    db.commit()


def messages(db: Session, job: Job) -> list[str]:
    db.rollback()
    query = select(JobEvent.message).where(JobEvent.job_id == job.id).order_by(JobEvent.seq)
    return list(db.scalars(query))


def test_a_claimed_job_is_running_under_a_higher_attempt(db: Session) -> None:
    job = make_job(db, status="queued", attempt=4)
    taken = claim()
    assert taken == Claim(job.id, 5, "running")
    assert fresh(db, job).status == "running"
    assert job.started_at is not None
    assert job.lease_expires_at is not None


def test_a_running_job_cannot_be_claimed_again(db: Session) -> None:
    make_job(db, status="queued")
    assert claim()
    assert claim() is None


def test_a_job_whose_lease_ran_out_goes_to_the_next_worker(db: Session) -> None:
    job = make_job(db, status="queued")
    first = claim()
    expire(db, job)
    second = claim()
    assert first
    assert second == Claim(job.id, first.attempt + 1, "running")


def test_jobs_are_claimed_oldest_first(db: Session) -> None:
    jobs = [make_job(db, status="queued") for _ in range(3)]
    taken = [claim() for _ in jobs]
    assert [each.job_id for each in taken if each] == [job.id for job in jobs]


def test_many_workers_at_once_never_get_the_same_job(db: Session) -> None:
    jobs = [make_job(db, status="queued") for _ in range(6)]
    with ThreadPoolExecutor(4) as pool:
        taken = list(pool.map(lambda _: claim(), range(12)))
    got = [each.job_id for each in taken if each]
    assert len(got) == len(set(got))
    while one := claim():
        got.append(one.job_id)
    assert sorted(got) == sorted(job.id for job in jobs)


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda db, held: runs.renew(db, held, LEASE), id="renew"),
        pytest.param(lambda db, held: runs.set_phase(db, held, "sampling"), id="phase"),
        pytest.param(lambda db, held: runs.made_step(db, held, 3), id="step"),
        pytest.param(runs.release, id="release"),
        pytest.param(lambda db, held: runs.requeue_crashed(db, held, "why"), id="requeue"),
        pytest.param(lambda db, held: runs.finish_failed(db, held, "code", "why"), id="fail"),
        pytest.param(runs.finish_cancelled, id="cancel"),
        pytest.param(
            lambda db, held: runs.finish_succeeded(
                db, held, fine_tuned_model="ft", result_files=[], trained_tokens=1
            ),
            id="succeed",
        ),
    ],
)
def test_an_old_attempt_writes_nothing(db: Session, write) -> None:  # type: ignore[no-untyped-def]
    job = make_job(db, status="queued")
    zombie = claim()
    expire(db, job)
    assert claim()
    before = {column.name: getattr(fresh(db, job), column.key) for column in Job.__mapper__.columns}
    events = messages(db, job)
    with pytest.raises(LeaseLost), unit_of_work() as other:
        write(other, zombie)
    after = {column.name: getattr(fresh(db, job), column.key) for column in Job.__mapper__.columns}
    assert after == before
    assert messages(db, job) == events


def test_only_moves_of_the_table_are_made(db: Session) -> None:
    for source, targets in MOVES.items():
        for target in MOVES:
            job = make_job(db, status=source)
            if target in targets:
                with unit_of_work() as other:
                    status.move(other, job.id, target)
            else:
                with pytest.raises(MoveRefused), unit_of_work() as other:
                    status.move(other, job.id, target)
            assert fresh(db, job).status == (target if target in targets else source)


@pytest.mark.parametrize("status", ["validating_files", "queued"])
def test_cancelling_a_job_that_does_not_run_takes_effect_at_once(db: Session, status: str) -> None:
    job = make_job(db, status=status)
    with unit_of_work() as other:
        control.request_cancel(other, job.id)
    assert fresh(db, job).status == "cancelled"
    assert job.finished_at is not None
    assert messages(db, job) == ["The job was cancelled"]


def test_cancelling_a_running_job_asks_its_worker(db: Session) -> None:
    job = make_job(db, status="queued")
    held = claim()
    assert held
    for _ in range(2):
        with unit_of_work() as other:
            control.request_cancel(other, job.id)
    assert fresh(db, job).status == "running"
    with unit_of_work() as other:
        assert runs.renew(other, held, LEASE).cancel_requested
        runs.finish_cancelled(other, held)
    assert fresh(db, job).status == "cancelled"


def test_cancelling_a_job_whose_worker_is_lost_takes_effect_at_once(db: Session) -> None:
    job = make_job(db, status="queued")
    claim()
    expire(db, job)
    with unit_of_work() as other:
        control.request_cancel(other, job.id)
    assert fresh(db, job).status == "cancelled"
    assert claim() is None


@pytest.mark.parametrize("status", ["succeeded", "failed", "cancelled"])
def test_a_job_that_is_over_cannot_be_cancelled(db: Session, status: str) -> None:
    job = make_job(db, status=status)
    with pytest.raises(MoveRefused), unit_of_work() as other:
        control.request_cancel(other, job.id)
    assert fresh(db, job).status == status


def test_a_validation_in_progress_can_be_cancelled(db: Session) -> None:
    job = make_job(db)
    with unit_of_work() as other:
        held = runs.claim_for_validation(other, "me", LEASE)
        assert held
    with unit_of_work() as other:
        control.request_cancel(other, job.id)
    with pytest.raises(LeaseLost), unit_of_work() as other:
        runs.queue_for_training(other, held, {}, 1)
    assert fresh(db, job).status == "cancelled"


def test_attempts_are_counted_until_one_makes_a_new_step(db: Session) -> None:
    job = make_job(db, status="queued")
    counts = []
    for step in (0, 0, 5, 5, 6):
        held = claim()
        assert held
        with unit_of_work() as other:
            runs.made_step(other, held, step)
            counts.append(status.update_held(other, held).fruitless_attempts)
            runs.requeue_crashed(other, held, "it broke")
    assert counts == [1, 2, 0, 1, 0]
    assert fresh(db, job).last_step == 6


def test_a_released_attempt_does_not_count(db: Session) -> None:
    job = make_job(db, status="queued")
    for _ in range(3):
        held = claim()
        assert held
        with unit_of_work() as other:
            runs.release(other, held)
    assert fresh(db, job).fruitless_attempts == 0
    assert job.status == "queued"
    assert job.lease_owner is None


def test_started_is_told_once(db: Session) -> None:
    job = make_job(db, status="queued")
    for _ in range(2):
        claim()
        expire(db, job)
    assert messages(db, job) == ["Fine-tuning job started"]


@pytest.mark.parametrize("kind", ["validate", "train"])
def test_the_waker_sees_work_that_a_claim_would_find(db: Session, kind: queue.Queue) -> None:
    assert not runs.has_work(db, kind, LARGE)
    job = make_job(db, status="queued" if kind == "train" else "validating_files")
    assert runs.has_work(db, kind, LARGE)
    if kind == "train":
        assert claim()
    else:
        with unit_of_work() as other:
            runs.claim_for_validation(other, "me", LEASE)
    db.rollback()
    assert not runs.has_work(db, kind, LARGE)
    expire(db, job)
    assert runs.has_work(db, kind, LARGE)


@pytest.mark.parametrize(
    ("resources", "fits"),
    [
        pytest.param({"gpus": 2}, Capacity(gpus=2, processes=1), id="gpus"),
        pytest.param({"processes": 4}, Capacity(gpus=0, processes=4), id="processes"),
    ],
)
def test_a_job_too_large_for_a_worker_waits_is_told_once_and_blocks_nobody(
    db: Session, resources: dict[str, int], fits: Capacity
) -> None:
    small = Capacity(gpus=fits.gpus - 1 if fits.gpus else 0, processes=max(1, fits.processes - 1))
    large, after = (make_job(db, status="queued", resources=it) for it in (resources, None))
    assert claim(capacity=small) == Claim(after.id, 1, "running")
    assert not runs.has_work(db, "train", small)
    assert claim(capacity=small) is None
    (told,) = messages(db, large)
    assert "waits for a worker with" in told
    assert str(next(iter(resources.values()))) in told
    assert fresh(db, large).status == "queued"
    assert claim(capacity=fits) == Claim(large.id, 1, "running")


def test_a_job_that_nobody_here_can_run_is_work_until_its_owner_knows(db: Session) -> None:
    make_job(db, status="queued", resources={"gpus": 1})
    none = Capacity(gpus=0, processes=8)
    assert runs.has_work(db, "train", none)
    assert claim(capacity=none) is None
    db.rollback()
    assert not runs.has_work(db, "train", none)
