"""What becomes true is told in the same transaction, to those who asked and to nobody else."""

from __future__ import annotations

import json
import threading
import time
from datetime import timedelta
from typing import Any

import httpx2 as httpx
import pytest
from sqlalchemy import select
from sqlalchemy.orm import Session

from app.db import unit_of_work
from app.jobs import runs
from app.jobs.capacity import Capacity
from app.webhooks import service as webhooks
from app.webhooks.models import WebhookDelivery, WebhookEvent
from tests.app.webhooks.webhook_rows import SUCCEEDED, emit
from tests.e2e.service import wait_for
from tests.factories import Tenant, make_job, make_tenant, make_webhook_endpoint
from tests.locks import waiting_for_locks

LEASE = timedelta(seconds=30)
FAILED = "fine_tuning.job.failed"
CANCELLED = "fine_tuning.job.cancelled"


def types_told(db: Session) -> list[str]:
    query = select(WebhookEvent.type).join(WebhookDelivery).order_by(WebhookDelivery.seq)
    return list(db.scalars(query))


def end(db: Session, job_id: str, how: str) -> None:
    claim = runs.claim_for_training(db, "test", LEASE, Capacity(gpus=0, processes=1))
    assert claim
    assert claim.job_id == job_id
    if how == SUCCEEDED:
        runs.finish_succeeded(db, claim, fine_tuned_model="ft:x", result_files=[], trained_tokens=1)
    elif how == FAILED:
        runs.finish_failed(db, claim, "server_error", "It broke.")
    else:
        runs.finish_cancelled(db, claim)


@pytest.mark.parametrize("how", [SUCCEEDED, FAILED, CANCELLED])
def test_the_end_of_a_job_and_its_event_are_one_transaction(db: Session, tenant: Tenant, how: Any) -> None:
    make_webhook_endpoint(db, tenant.project_id, types=(SUCCEEDED, FAILED, CANCELLED))
    job = make_job(db, tenant.project_id)
    db.commit()
    end(db, job.id, how)
    assert types_told(db) == [how]
    db.rollback()
    assert types_told(db) == []
    end(db, job.id, how)
    db.commit()
    assert types_told(db) == [how]
    body = json.loads(db.scalars(select(WebhookEvent.body)).one())
    assert body == {
        "id": body["id"],
        "object": "event",
        "created_at": body["created_at"],
        "type": how,
        "data": {"id": job.id},
    }
    assert body["id"].startswith("evt_")
    assert abs(body["created_at"] - time.time()) < 60


def test_a_waiting_job_that_is_cancelled_is_told_of(http: httpx.Client, db: Session, tenant: Tenant) -> None:
    make_webhook_endpoint(db, tenant.project_id, types=(CANCELLED,))
    job = make_job(db, tenant.project_id)
    db.commit()
    assert http.post(f"/v1/fine_tuning/jobs/{job.id}/cancel").status_code == 200
    assert types_told(db) == [CANCELLED]
    assert http.post(f"/v1/fine_tuning/jobs/{job.id}/cancel").status_code == 400
    assert types_told(db) == [CANCELLED]


def test_only_the_projects_endpoints_that_asked_are_told(db: Session, tenant: Tenant) -> None:
    other = make_tenant(db, "other")
    asked = [make_webhook_endpoint(db, tenant.project_id).id for _ in range(2)]
    make_webhook_endpoint(db, tenant.project_id, types=(FAILED,))
    make_webhook_endpoint(db, other.project_id)
    deliveries = emit(db, tenant, "ftjob-1")
    assert sorted(each.endpoint_id for each in deliveries) == sorted(asked)
    assert len({each.event_id for each in deliveries}) == 1
    assert len({each.id for each in deliveries}) == 2


def test_an_endpoint_deleted_meanwhile_does_not_undo_the_job(db: Session, tenant: Tenant) -> None:
    """The delete has not committed when the event is told; waiting for it must not fail the event."""
    gone = make_webhook_endpoint(db, tenant.project_id)
    db.commit()
    webhooks.remove(db, tenant.project_id, gone.id)
    told = threading.Thread(target=_emit_elsewhere, args=(tenant,))
    told.start()
    wait_for(waiting_for_locks, what="the other transaction to wait")
    db.commit()
    told.join(20)
    assert not told.is_alive()
    assert types_told(db) == []


def _emit_elsewhere(tenant: Tenant) -> None:
    with unit_of_work() as db:
        webhooks.emit(db, tenant.project_id, SUCCEEDED, "ftjob-1")
