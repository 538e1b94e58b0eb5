"""Webhooks of tests, as rows."""

from __future__ import annotations

from sqlalchemy import select
from sqlalchemy.orm import Session

from app.webhooks import service as webhooks
from app.webhooks.models import WebhookDelivery
from tests.factories import Tenant

SUCCEEDED = "fine_tuning.job.succeeded"


def emit(db: Session, tenant: Tenant, *objects: str) -> list[WebhookDelivery]:
    """One delivery for each object, of an event about it."""
    for each in objects:
        webhooks.emit(db, tenant.project_id, SUCCEEDED, each)
    db.commit()
    return list(db.scalars(select(WebhookDelivery).order_by(WebhookDelivery.seq)))
