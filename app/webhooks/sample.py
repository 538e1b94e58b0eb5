"""Sends a sample event to an endpoint, once and now."""

from __future__ import annotations

from app.db import unit_of_work
from app.errors import BadRequest
from app.sealing import NoSecretKey, Sealer
from app.settings import get_settings
from app.webhooks import message
from app.webhooks import service as webhooks
from app.webhooks.event_types import EventType


def send_sample(project_id: str, endpoint_id: str, event_type: EventType) -> int:
    """Returns the status that an endpoint answers a sample event with.

    No transaction is open meanwhile. Raises `NotFound`, or `BadRequest` where nothing came back.
    """
    sealed_by = sealer()
    with unit_of_work() as db:
        sample = webhooks.sample(db, sealed_by, project_id, endpoint_id, event_type)
    outcome = message.post(sample, message.client_of(get_settings()))
    if outcome.status_code is None:
        raise BadRequest(f"The test event could not be delivered: {outcome.error}", param="url")
    return outcome.status_code


def sealer() -> Sealer:
    """Returns what seals the secrets of endpoints. Raises `BadRequest` on a service without a key for it."""
    try:
        return Sealer(get_settings())
    except NoSecretKey:
        told = (
            "Webhook endpoints are not available on this service: its operator has not set CHERRY_SECRET_KEY."
        )
        raise BadRequest(told, code="webhooks_not_configured") from None
