"""Tables of webhook endpoints and of the outbox."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Identity, Index, LargeBinary, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base

PENDING, DELIVERED, FAILED = "pending", "delivered", "failed"


class WebhookEndpoint(Base):
    """Where a project wants its events sent."""

    __tablename__ = "webhook_endpoints"
    __table_args__ = (Index("ix_webhook_endpoints_project", "project_id", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    """whe_..."""
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    url: Mapped[str]
    event_types: Mapped[list[Any]]
    secret: Mapped[bytes] = mapped_column(LargeBinary)
    """Sealed (app/sealing.py), bound to this endpoint's id."""
    secret_hint: Mapped[str]
    old_secret: Mapped[bytes | None] = mapped_column(LargeBinary)
    """The secret before, which signs too until `old_secret_expires_at`."""
    old_secret_expires_at: Mapped[datetime | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    failing_since: Mapped[datetime | None]
    """The first failure after the last success; None while all is well."""


class WebhookEvent(Base):
    """Something that happened, in the bytes that every endpoint gets."""

    __tablename__ = "webhook_events"

    id: Mapped[str] = mapped_column(primary_key=True)
    """evt_..."""
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    type: Mapped[str]
    body: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class WebhookDelivery(Base):
    """The outbox: one event for one endpoint. Its id is the `webhook-id` of every attempt."""

    __tablename__ = "webhook_deliveries"
    __table_args__ = (
        Index(
            "ix_webhook_deliveries_due",
            "endpoint_id",
            "next_at",
            "seq",
            postgresql_where=text("status = 'pending'"),
        ),
        Index("ix_webhook_deliveries_claimed", "claimed_until", postgresql_where=text("status = 'pending'")),
        Index("ix_webhook_deliveries_endpoint", "endpoint_id", "seq"),
        Index("ix_webhook_deliveries_event", "event_id"),
        Index("ix_webhook_deliveries_finished", "finished_at"),
        Index(
            "ix_webhook_deliveries_order",
            "endpoint_id",
            "order_key",
            "seq",
            postgresql_where=text("status = 'pending'"),
        ),
        CheckConstraint(f"status IN {(PENDING, DELIVERED, FAILED)}", name="status"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """wh_..."""
    seq: Mapped[int] = mapped_column(BigInteger, Identity(always=True), unique=True)
    """Order in which events were told."""
    event_id: Mapped[str] = mapped_column(ForeignKey("webhook_events.id", ondelete="CASCADE"))
    endpoint_id: Mapped[str] = mapped_column(ForeignKey("webhook_endpoints.id", ondelete="CASCADE"))
    order_key: Mapped[str]
    """Deliveries to one endpoint with the same key (a job's id) are sent in order."""
    status: Mapped[str] = mapped_column(server_default=text("'pending'"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    """How many attempts were begun. The number is also the fence: a relay that lost its claim writes
    nothing."""
    next_at: Mapped[datetime] = mapped_column(server_default=func.now())
    claimed_until: Mapped[datetime | None]
    """Until then a relay has it."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    last_attempt_at: Mapped[datetime | None]
    last_status_code: Mapped[int | None]
    last_error: Mapped[str | None]
    """Why the last attempt failed, in our words: nothing of a response's body is kept."""
    finished_at: Mapped[datetime | None]
