"""What the pages show of a job is what it has delivered."""

from __future__ import annotations

from sqlalchemy.orm import Session

from app.dashboard.home import queries
from app.jobs.models import Job
from tests.factories import Tenant, make_checkpoint, make_job, make_tuned_model


def of_job(db: Session, job: Job, *rewards: float | None) -> Job:
    for step, reward in enumerate(rewards):
        make_checkpoint(db, job, step, valid_reward=reward)
    return job


def test_a_jobs_reward_is_the_delivered_models(db: Session, tenant: Tenant) -> None:
    early, base, running, unmeasured = jobs = [make_job(db, tenant.project_id) for _ in range(4)]
    for job in (early, base, running):
        of_job(db, job, 0.4, 0.6, 0.8)
    of_job(db, unmeasured, None, None)
    for job, step in ((early, 1), (base, 0)):
        job.fine_tuned_model = f"ft:{job.id}"
        make_tuned_model(db, job, f"ft:{job.id}").storage_key = f"jobs/{job.id}/checkpoints/{step}-1"
    db.flush()
    assert queries.rewards(db, jobs) == {
        early.id: (0.4, 0.6),
        base.id: (0.4, 0.4),
        running.id: (0.4, None),
    }
