"""`cherry jobs show` says why a job is paused."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.orm import Session
from typer.testing import CliRunner

from app.cli.main import cli
from app.jobs import control, runs
from app.jobs.capacity import Capacity
from app.jobs.models import Job
from app.storage import get_storage
from tests.factories import Tenant, make_job
from workers.jobs.db_recorder import DatabaseRecorder

WHY = "The job pauses, since its grades are missing. The judge 'judge' has answered nothing for 180 seconds."


def shown(job: Job, server_url: str, tenant: Tenant) -> str:
    command = ["jobs", "show", job.id, "--url", server_url, "--key", tenant.key]
    found = CliRunner().invoke(cli, command)
    assert found.exit_code == 0, found.output
    return found.output


def test_a_job_that_paused_by_itself_says_why(server_url: str, db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id, status="queued")
    db.commit()
    claim = runs.claim_for_training(db, "worker", timedelta(seconds=30), Capacity(gpus=0, processes=1))
    assert claim is not None
    db.commit()
    assert "Paused" not in shown(job, server_url, tenant)
    recorder = DatabaseRecorder(claim, get_storage())
    recorder.pausing(WHY)
    recorder.pausing(WHY)  # told again, as after a resume
    runs.release(db, claim)
    db.commit()
    found = shown(job, server_url, tenant)
    assert found.count(WHY) == 1
    assert "The job was paused; resume it to go on" in found


def test_one_that_its_owner_paused_says_so(server_url: str, db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id, status="queued")
    control.request_pause(db, job.id)
    db.commit()
    lines = [line for line in shown(job, server_url, tenant).splitlines() if line.startswith("Paused")]
    assert [line.split(maxsplit=1)[1] for line in lines] == ["The job was paused; resume it to go on"]
