"""Manages the webhook endpoints of a project, and tells them of events. app/webhooks/outbox.py sends."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Select, func, select, update
from sqlalchemy.orm import Session

from app.errors import BadRequest, NotFound
from app.ids import random_id
from app.pagination import Owned, Page, page_by_age
from app.sealing import Sealer
from app.tenants.models import Project
from app.webhooks.event_types import EventType
from app.webhooks.message import WebhookMessage, event_body, new_key, shown_secret
from app.webhooks.models import PENDING, WebhookDelivery, WebhookEndpoint, WebhookEvent

MAX_ENDPOINTS = 50
OVERLAP = timedelta(hours=24)


class WithSecret(NamedTuple):
    """An endpoint and its secret, as it is shown once."""

    endpoint: WebhookEndpoint
    secret: str


class Delivered(NamedTuple):
    delivery: WebhookDelivery
    event_type: str


def create(
    db: Session, sealer: Sealer, project_id: str, *, name: str, url: str, event_types: Sequence[EventType]
) -> WithSecret:
    """Makes an endpoint whose URL has been checked. Raises `BadRequest` if the project has too many."""
    _check_room(db, project_id)
    key, endpoint_id = new_key(), random_id("whe_")
    endpoint = WebhookEndpoint(
        id=endpoint_id,
        project_id=project_id,
        name=name,
        url=url,
        event_types=_unique(event_types),
        secret=sealer.seal(key, endpoint_id),
        secret_hint=_hint(key),
    )
    db.add(endpoint)
    db.flush()
    return WithSecret(endpoint, shown_secret(key))


def get(db: Session, project_id: str, endpoint_id: str) -> WebhookEndpoint:
    """Returns an endpoint of the project. Raises `NotFound`."""
    return _found(db, _own(project_id), endpoint_id)


def list_endpoints(db: Session, project_id: str, *, after: str | None, limit: int) -> Page[WebhookEndpoint]:
    """Lists endpoints, newest first."""
    of = Owned(WebhookEndpoint.project_id, project_id)
    return page_by_age(db, _own(project_id), of, after=after, limit=limit, newest_first=True)


def change(
    db: Session,
    project_id: str,
    endpoint_id: str,
    *,
    name: str | None,
    url: str | None,
    event_types: Sequence[EventType] | None,
) -> WebhookEndpoint:
    """Changes what is given; what waits for a new URL is sent there at once. Raises `NotFound`."""
    endpoint = _found(db, _own(project_id).with_for_update(), endpoint_id)
    new = {"name": name, "url": url, "event_types": _unique(event_types) if event_types else None}
    changed = {key: value for key, value in new.items() if value not in (None, getattr(endpoint, key))}
    for key, value in changed.items():
        setattr(endpoint, key, value)
    if "url" in changed:
        waiting = (WebhookDelivery.endpoint_id == endpoint.id, WebhookDelivery.status == PENDING)
        db.execute(update(WebhookDelivery).where(*waiting).values(next_at=func.now()))
    if changed:
        _touch(db, endpoint)
    return endpoint


def remove(db: Session, project_id: str, endpoint_id: str) -> None:
    """Deletes an endpoint and all that waits for it. Raises `NotFound`."""
    db.delete(_found(db, _own(project_id).with_for_update(), endpoint_id))
    db.flush()


def rotate_secret(
    db: Session, sealer: Sealer, project_id: str, endpoint_id: str, *, keep_old: bool
) -> WithSecret:
    """Makes a new secret; the old one signs too for another day if it is to be kept. Raises `NotFound`."""
    endpoint = _found(db, _own(project_id).with_for_update(), endpoint_id)
    key = new_key()
    endpoint.old_secret = endpoint.secret if keep_old else None
    endpoint.old_secret_expires_at = _now(db) + OVERLAP if keep_old else None
    endpoint.secret, endpoint.secret_hint = sealer.seal(key, endpoint.id), _hint(key)
    _touch(db, endpoint)
    return WithSecret(endpoint, shown_secret(key))


def sample(
    db: Session, sealer: Sealer, project_id: str, endpoint_id: str, event_type: EventType
) -> WebhookMessage:
    """Returns a message for trying an endpoint; its event is about nothing real. Raises `NotFound`."""
    endpoint = get(db, project_id, endpoint_id)
    now = _now(db)
    data = {"id": f"sample_{random_id('', 12)}"}
    body = event_body(random_id("evt_"), event_type, int(now.timestamp()), data)
    overlaps = endpoint.old_secret_expires_at is not None and endpoint.old_secret_expires_at > now
    sealed = [endpoint.secret, endpoint.old_secret if overlaps else None]
    keys = [sealer.open(each, endpoint.id) for each in sealed if each]
    return WebhookMessage(random_id("wh_"), endpoint.url, body.encode(), keys)


def list_deliveries(
    db: Session, project_id: str, endpoint_id: str, *, after: str | None, limit: int
) -> Page[Delivered]:
    """Lists what was told to an endpoint, newest first. Raises `NotFound`."""
    endpoint = get(db, project_id, endpoint_id)
    of_endpoint = WebhookDelivery.endpoint_id == endpoint.id
    query = select(WebhookDelivery, WebhookEvent.type).join(WebhookEvent).where(of_endpoint)
    of = Owned(WebhookDelivery.endpoint_id, endpoint.id)
    if seen := of.place(db, after, ("seq",)) if after else None:
        query = query.where(WebhookDelivery.seq < seen[0])
    newest_first = query.order_by(WebhookDelivery.seq.desc()).limit(limit + 1)
    rows = [Delivered(*row) for row in db.execute(newest_first)]
    return Page(rows[:limit], len(rows) > limit)


def emit(
    db: Session, project_id: str, event_type: EventType, object_id: str, *, job_id: str | None = None
) -> None:
    """Tells every endpoint of the project that wants to know, once this transaction commits.

    Call it in the transaction that makes the event true. With `job_id` the object belongs to that job: the
    payload names it, and the job's events reach an endpoint in their order.
    """
    wants = (WebhookEndpoint.project_id == project_id, WebhookEndpoint.event_types.contains([event_type]))
    # locked, or an endpoint deleted meanwhile would undo all of the caller's transaction
    found = select(WebhookEndpoint.id).where(*wants).with_for_update(read=True, key_share=True)
    endpoint_ids = db.scalars(found).all()
    if not endpoint_ids:
        return
    event_id = random_id("evt_")
    data = {"id": object_id, **({"fine_tuning_job_id": job_id} if job_id else {})}
    body = event_body(event_id, event_type, int(_now(db).timestamp()), data)
    db.add(WebhookEvent(id=event_id, project_id=project_id, type=event_type, body=body))
    db.flush()
    order_key = job_id or object_id
    for endpoint_id in endpoint_ids:
        delivery = {"event_id": event_id, "endpoint_id": endpoint_id, "order_key": order_key}
        db.add(WebhookDelivery(id=random_id("wh_"), **delivery))
    db.flush()


def _own(project_id: str) -> Select[WebhookEndpoint]:
    return select(WebhookEndpoint).where(WebhookEndpoint.project_id == project_id)


def _found(db: Session, query: Select[WebhookEndpoint], endpoint_id: str) -> WebhookEndpoint:
    endpoint = db.scalars(query.where(WebhookEndpoint.id == endpoint_id)).first()
    if endpoint is None:
        raise NotFound(f"No such webhook endpoint: {endpoint_id}", param="webhook_endpoint_id")
    return endpoint


def _check_room(db: Session, project_id: str) -> None:
    """Counts under a lock on the project, so that two requests at once cannot both take the last place."""
    db.scalars(select(Project.id).where(Project.id == project_id).with_for_update(key_share=True)).one()
    count = select(func.count()).select_from(WebhookEndpoint).where(WebhookEndpoint.project_id == project_id)
    if db.scalars(count).one() >= MAX_ENDPOINTS:
        raise BadRequest(f"A project may have at most {MAX_ENDPOINTS} webhook endpoints. Delete one first.")


def _unique(event_types: Sequence[EventType]) -> list[EventType]:
    return list(dict.fromkeys(event_types))


def _hint(key: bytes) -> str:
    return f"whsec_...{shown_secret(key)[-4:]}"


def _touch(db: Session, endpoint: WebhookEndpoint) -> None:
    endpoint.updated_at = _now(db)
    db.flush()


def _now(db: Session) -> datetime:
    """Returns the time by the database's clock: the only one that all processes share."""
    return db.scalars(select(func.now())).one()
