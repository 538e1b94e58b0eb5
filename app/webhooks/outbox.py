"""Takes deliveries that are due out of the outbox, and writes down what became of them.

A claim is a lease by the database's clock, and the number of the attempt its fence: a relay that is killed
loses nothing, for its deliveries are due again when the lease runs out, and one that comes too late writes
nothing. So an event may arrive twice, with the same `webhook-id`, and is never lost.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog
from sqlalchemy import case, delete, exists, func, not_, or_, select, text, update
from sqlalchemy.orm import Session

from app.webhooks.message import Outcome
from app.webhooks.models import DELIVERED, FAILED, PENDING, WebhookDelivery, WebhookEndpoint, WebhookEvent

log = structlog.get_logger(__name__)

IN_FLIGHT = 4
"""Most messages at once to one endpoint; one that fails gets them one by one."""
ORDERED_ATTEMPTS = 5
"""A delivery is tried so often before later ones about the same job may overtake it."""
LONGEST_PAUSE = timedelta(hours=6)
JITTER = 0.25
"""Pauses vary by this share, so that what failed together is not tried together."""
KEPT = timedelta(days=30)
"""How long finished deliveries can be listed."""

DUE = text("""
    WITH flying AS (
        SELECT endpoint_id, count(*) AS messages FROM webhook_deliveries
        WHERE status = 'pending' AND claimed_until > now() GROUP BY endpoint_id
    ), due AS (
        SELECT next.id, endpoint.failing_since IS NOT NULL AS is_failing
        FROM webhook_endpoints endpoint
        LEFT JOIN flying ON flying.endpoint_id = endpoint.id
        CROSS JOIN LATERAL (
            SELECT id FROM webhook_deliveries mine
            WHERE endpoint_id = endpoint.id AND status = 'pending' AND next_at <= now()
                AND (claimed_until IS NULL OR claimed_until < now())
                AND NOT EXISTS (
                    SELECT 1 FROM webhook_deliveries earlier
                    WHERE earlier.endpoint_id = endpoint.id AND earlier.order_key = mine.order_key
                        AND earlier.status = 'pending' AND earlier.seq < mine.seq
                        AND (earlier.attempts < :ordered OR earlier.claimed_until > now())
                )
            ORDER BY next_at, seq
            LIMIT greatest(
                CASE WHEN endpoint.failing_since IS NULL THEN :in_flight ELSE 1 END
                - coalesce(flying.messages, 0), 0)
        ) next
    )
    SELECT delivery.id FROM webhook_deliveries delivery JOIN due USING (id)
    WHERE status = 'pending' AND next_at <= now() AND (claimed_until IS NULL OR claimed_until < now())
    ORDER BY is_failing, next_at, seq LIMIT :most
    FOR UPDATE OF delivery SKIP LOCKED
""")
"""Ids of deliveries to send now. Each endpoint is looked at by itself, so that a long backlog of
one costs nothing; the conditions are said again where the rows are locked, for another relay may have been
quicker."""


@dataclass(frozen=True)
class Claimed:
    """The right to make one attempt, and what it takes."""

    delivery_id: str
    attempt: int
    endpoint_id: str
    url: str
    body: str
    sealed: Sequence[bytes] = field(repr=False)
    """The secrets that sign, the newest first."""


def claim(db: Session, *, most: int, lease: timedelta) -> list[Claimed]:
    """Takes up to `most` deliveries that are due; endpoints that are well come first."""
    limits = {"most": most, "in_flight": IN_FLIGHT, "ordered": ORDERED_ATTEMPTS}
    ids = db.scalars(DUE, limits).all()
    if not ids:
        return []
    taken = {
        "attempts": WebhookDelivery.attempts + 1,
        "claimed_until": func.now() + lease,
        "last_attempt_at": func.now(),
    }
    db.execute(update(WebhookDelivery).where(WebhookDelivery.id.in_(ids)).values(taken))
    overlaps = WebhookEndpoint.old_secret_expires_at > func.now()
    endpoint = (WebhookEndpoint.id, WebhookEndpoint.url, WebhookEndpoint.secret)
    rows = db.execute(
        select(WebhookDelivery.id, WebhookDelivery.attempts, WebhookEvent.body, *endpoint)
        .add_columns(case((overlaps, WebhookEndpoint.old_secret)))
        .join(WebhookEndpoint, WebhookEndpoint.id == WebhookDelivery.endpoint_id)
        .join(WebhookEvent, WebhookEvent.id == WebhookDelivery.event_id)
        .where(WebhookDelivery.id.in_(ids))
    )
    return [
        Claimed(delivery_id, attempt, endpoint_id, url, body, [secret, *([old] if old else [])])
        for delivery_id, attempt, body, endpoint_id, url, secret, old in rows
    ]


def settle(
    db: Session, claimed: Claimed, outcome: Outcome, *, first_pause: timedelta, retry_for: timedelta
) -> None:
    """Writes down how an attempt went, unless the delivery is another relay's by now."""
    held = (
        WebhookDelivery.id == claimed.delivery_id,
        WebhookDelivery.attempts == claimed.attempt,
        WebhookDelivery.status == PENDING,
    )
    now = {"claimed_until": None, "last_status_code": outcome.status_code, "last_error": outcome.error}
    change = update(WebhookDelivery).where(*held)
    if outcome.is_delivered:
        db.execute(change.values(**now, status=DELIVERED, finished_at=func.now()))
        _is_well(db, claimed.endpoint_id)
        return
    again = func.now() + pause(claimed.attempt, first_pause)
    is_over = again > WebhookDelivery.created_at + retry_for
    after = {"status": case((is_over, FAILED), else_=PENDING), "finished_at": case((is_over, func.now()))}
    status = db.scalars(
        change.values(**now, **after, next_at=again).returning(WebhookDelivery.status)
    ).first()
    if status is None:
        return
    _is_failing(db, claimed.endpoint_id)
    told = {
        "delivery_id": claimed.delivery_id,
        "endpoint_id": claimed.endpoint_id,
        "attempt": claimed.attempt,
    }
    log.warning(
        "webhook_not_delivered", **told, outcome=status, status=outcome.status_code, error=outcome.error
    )


def pause(attempt: int, first: timedelta) -> timedelta:
    """Returns the pause until the next try: doubled with each attempt up to six hours, and varied."""
    doubled = first * 2 ** min(attempt - 1, 30) if attempt <= 30 else LONGEST_PAUSE
    return min(doubled, LONGEST_PAUSE) * random.uniform(1 - JITTER, 1 + JITTER)


def failing_for(db: Session, long: timedelta) -> Sequence[tuple[str, str, datetime, int]]:
    """Returns endpoints that have failed without a break for so long: id, project, since when, how many
    wait."""
    waiting = select(func.count()).where(
        WebhookDelivery.endpoint_id == WebhookEndpoint.id, WebhookDelivery.status == PENDING
    )
    query = select(
        WebhookEndpoint.id,
        WebhookEndpoint.project_id,
        WebhookEndpoint.failing_since,
        waiting.scalar_subquery(),
    ).where(WebhookEndpoint.failing_since < func.now() - long)
    return [(key, project, since, count) for key, project, since, count in db.execute(query)]


def purge(db: Session, limit: int = 1000) -> int:
    """Deletes some of what was finished long ago. Returns how many."""
    old = select(WebhookDelivery.id).where(WebhookDelivery.finished_at < func.now() - KEPT).limit(limit)
    gone = db.scalars(
        delete(WebhookDelivery).where(WebhookDelivery.id.in_(old)).returning(WebhookDelivery.event_id)
    ).all()
    used = exists().where(WebhookDelivery.event_id == WebhookEvent.id)
    orphaned = or_(WebhookEvent.id.in_(gone), WebhookEvent.created_at < func.now() - KEPT)
    db.execute(delete(WebhookEvent).where(orphaned, not_(used)))
    return len(gone)


def _is_well(db: Session, endpoint_id: str) -> None:
    failing = (WebhookEndpoint.id == endpoint_id, WebhookEndpoint.failing_since.is_not(None))
    db.execute(update(WebhookEndpoint).where(*failing).values(failing_since=None))


def _is_failing(db: Session, endpoint_id: str) -> None:
    well = (WebhookEndpoint.id == endpoint_id, WebhookEndpoint.failing_since.is_(None))
    db.execute(update(WebhookEndpoint).where(*well).values(failing_since=func.now()))
