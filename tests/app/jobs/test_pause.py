"""Pause and resume over HTTP, as the loose and the strict client see them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import httpx2 as httpx
import openai
import pytest
from sqlalchemy.orm import Session

from app.jobs.models import TERMINAL
from app.settings import get_settings
from tests.app.http import openai_schema
from tests.factories import Tenant, make_job, make_tenant

JOBS = "/v1/fine_tuning/jobs"


def test_a_queued_job_pauses_at_once_and_its_answer_is_one_that_every_client_takes(
    client: openai.OpenAI, http: httpx.Client, db: Session, tenant: Tenant
) -> None:
    job = make_job(db, tenant.project_id)
    db.commit()
    for _ in range(2):
        assert client.fine_tuning.jobs.pause(job.id).status == "queued"
        assert http.get(f"{JOBS}/{job.id}").json()["status"] == "paused"
    assert client.fine_tuning.jobs.resume(job.id).status == "queued"
    assert http.get(f"{JOBS}/{job.id}").json()["status"] == "queued"
    told = [event.message for event in client.fine_tuning.jobs.list_events(job.id)]
    assert told == [
        "The job was resumed, moving job to queued state",
        "The job was paused; resume it to go on",
    ]


def test_a_running_job_is_shown_running_until_it_has_paused(
    client: openai.OpenAI, db: Session, tenant: Tenant
) -> None:
    lease = datetime.now(UTC) + timedelta(seconds=30)
    job = make_job(db, tenant.project_id, status="running", lease_expires_at=lease, lease_owner="worker")
    db.commit()
    assert client.fine_tuning.jobs.pause(job.id).status == "running"
    assert client.fine_tuning.jobs.retrieve(job.id).status == "running"
    assert client.fine_tuning.jobs.resume(job.id).status == "running"
    assert client.fine_tuning.jobs.list_events(job.id).data[0].message.startswith("The pause was withdrawn")


def test_paused_is_shown_as_queued_where_the_operator_says_so(
    client: openai.OpenAI,
    http: httpx.Client,
    db: Session,
    tenant: Tenant,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CHERRY_REPORT_PAUSED_AS", "queued")
    get_settings.cache_clear()
    job = make_job(db, tenant.project_id, status="paused")
    db.commit()
    assert client.fine_tuning.jobs.retrieve(job.id).status == "queued"
    openai_schema.check(http.get(JOBS).json(), "ListPaginatedFineTuningJobsResponse")


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_a_job_that_is_validating_or_over_refuses(
    http: httpx.Client, db: Session, tenant: Tenant, verb: str
) -> None:
    for status in ("validating_files", *TERMINAL):
        job = make_job(db, tenant.project_id, status=status)
        db.commit()
        answer = http.post(f"{JOBS}/{job.id}/{verb}", headers={"content-type": "application/json"})
        assert answer.status_code == 400
        assert job.id in answer.json()["error"]["message"]
        assert http.get(f"{JOBS}/{job.id}").json()["status"] == status


@pytest.mark.parametrize("verb", ["pause", "resume"])
def test_anothers_job_is_not_there(http: httpx.Client, db: Session, verb: str) -> None:
    job = make_job(db, make_tenant(db, "other").project_id)
    db.commit()
    answer = http.post(f"{JOBS}/{job.id}/{verb}")
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "fine_tune_not_found"


def test_a_paused_job_is_cancelled_at_once(client: openai.OpenAI, db: Session, tenant: Tenant) -> None:
    job = make_job(db, tenant.project_id, status="paused")
    db.commit()
    assert client.fine_tuning.jobs.cancel(job.id).status == "cancelled"
