"""Webhook endpoints and deliveries on the wire."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from app.pagination import Listed, Page
from app.webhooks.event_types import EventType
from app.webhooks.models import WebhookEndpoint
from app.webhooks.service import Delivered, WithSecret
from app.wire import seconds

Name = Annotated[str, StringConstraints(min_length=1, max_length=256)]
Url = Annotated[str, StringConstraints(min_length=1, max_length=2048)]
EventTypes = Annotated[list[EventType], Field(min_length=1, max_length=64)]


class EndpointCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    name: Name
    url: Url
    event_types: EventTypes


class EndpointUpdate(BaseModel):
    """What is left out stays."""

    model_config = ConfigDict(extra="forbid")

    name: Name | None = None
    url: Url | None = None
    event_types: EventTypes | None = None


class SecretRotation(BaseModel):
    model_config = ConfigDict(extra="forbid")

    keep_old_secret_active_for_24_hours: bool | None = None


class EndpointTest(BaseModel):
    model_config = ConfigDict(extra="forbid")

    event_type: EventType


class EndpointOut(BaseModel):
    """An endpoint. `failing_since` is ours, and left out while deliveries succeed."""

    id: str
    object: Literal["webhook_endpoint"] = "webhook_endpoint"
    created_at: int
    updated_at: int
    name: str
    url: str
    event_types: list[str]
    signing_secret_hint: str
    failing_since: int | None = None

    @classmethod
    def of(cls, endpoint: WebhookEndpoint) -> EndpointOut:
        return cls(**_columns(endpoint))


class EndpointWithSecretOut(EndpointOut):
    """The only answers that show a secret: those of create and rotate."""

    signing_secret: str

    @classmethod
    def of_new(cls, made: WithSecret) -> EndpointWithSecretOut:
        return cls(**_columns(made.endpoint), signing_secret=made.secret)


class EndpointList(Listed[EndpointOut]):
    """Where a page is empty, its ends are left out."""

    first_id: str | None = None
    last_id: str | None = None

    @classmethod
    def of(cls, page: Page[WebhookEndpoint]) -> EndpointList:
        return cls.holding([EndpointOut.of(row) for row in page.rows], page.has_more)


class EndpointDeleted(BaseModel):
    id: str
    object: Literal["webhook_endpoint.deleted"] = "webhook_endpoint.deleted"
    deleted: bool = True


class EndpointTested(BaseModel):
    object: Literal["webhook_endpoint.test"] = "webhook_endpoint.test"
    event_type: str
    status_code: int
    success: Literal[True] = True
    webhook_endpoint_id: str


class EventTypeList(BaseModel):
    object: Literal["list"] = "list"
    data: list[str]


class DeliveryOut(BaseModel):
    """What became of one event at one endpoint."""

    id: str
    object: Literal["webhook_endpoint.delivery"] = "webhook_endpoint.delivery"
    event_id: str
    event_type: str
    status: Literal["pending", "delivered", "failed"]
    attempts: int
    created_at: int
    last_attempt_at: int | None
    next_attempt_at: int | None
    finished_at: int | None
    last_status_code: int | None
    last_error: str | None

    @classmethod
    def of(cls, delivered: Delivered) -> DeliveryOut:
        row = delivered.delivery
        return cls(
            id=row.id,
            event_id=row.event_id,
            event_type=delivered.event_type,
            status=row.status,
            attempts=row.attempts,
            created_at=int(row.created_at.timestamp()),
            last_attempt_at=seconds(row.last_attempt_at),
            next_attempt_at=None if row.finished_at else seconds(row.next_at),
            finished_at=seconds(row.finished_at),
            last_status_code=row.last_status_code,
            last_error=row.last_error,
        )


class DeliveryList(Listed[DeliveryOut]):
    @classmethod
    def of(cls, page: Page[Delivered]) -> DeliveryList:
        return cls.holding([DeliveryOut.of(row) for row in page.rows], page.has_more)


def _columns(endpoint: WebhookEndpoint) -> dict[str, object]:
    return {
        "id": endpoint.id,
        "created_at": int(endpoint.created_at.timestamp()),
        "updated_at": int(endpoint.updated_at.timestamp()),
        "name": endpoint.name,
        "url": endpoint.url,
        "event_types": endpoint.event_types,
        "signing_secret_hint": endpoint.secret_hint,
        "failing_since": seconds(endpoint.failing_since),
    }
