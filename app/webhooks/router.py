"""Serves /v1/webhook_endpoints and /v1/webhook_event_types."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from app.db import unit_of_work
from app.errors import BadRequest
from app.http.transaction import CurrentCaller, Db, KeptRoute
from app.outbound import TargetRefused, check_target, rules_of
from app.pagination import Cursor, Limit
from app.settings import get_settings
from app.webhooks import service as webhooks
from app.webhooks.event_types import EVENT_TYPES
from app.webhooks.sample import sealer, send_sample
from app.webhooks.schemas import (
    DeliveryList,
    EndpointCreate,
    EndpointDeleted,
    EndpointList,
    EndpointOut,
    EndpointTest,
    EndpointTested,
    EndpointUpdate,
    EndpointWithSecretOut,
    EventTypeList,
    SecretRotation,
)

router = APIRouter(prefix="/v1", tags=["webhooks"], route_class=KeptRoute)

ENDPOINTS = "/webhook_endpoints"
ENDPOINT = f"{ENDPOINTS}/{{webhook_endpoint_id}}"


def known(webhook_endpoint_id: str, caller: CurrentCaller) -> None:
    """Refuses an endpoint that is not there. A dependency is asked before the body is looked at."""
    with unit_of_work() as db:
        webhooks.get(db, caller.project_id, webhook_endpoint_id)


KNOWN = [Depends(known)]


@router.get("/webhook_event_types")
def list_event_types(_: CurrentCaller) -> EventTypeList:
    """The types of events that an endpoint may ask for."""
    return EventTypeList(data=list(EVENT_TYPES))


@router.post(ENDPOINTS, response_model_exclude_none=True)
def create_endpoint(request: EndpointCreate, caller: CurrentCaller, db: Db) -> EndpointWithSecretOut:
    """Have events sent to a URL. The signing secret is in this answer only."""
    sealed_by = sealer()
    _check(request.url)  # before the first query: no transaction is open while a name is resolved
    wanted = request.model_dump()
    return EndpointWithSecretOut.of_new(webhooks.create(db, sealed_by, caller.project_id, **wanted))


@router.get(ENDPOINTS, response_model_exclude_none=True)
def list_endpoints(caller: CurrentCaller, db: Db, after: Cursor = None, limit: Limit = 20) -> EndpointList:
    """Endpoints, newest first."""
    return EndpointList.of(webhooks.list_endpoints(db, caller.project_id, after=after, limit=limit))


@router.get(ENDPOINT, response_model_exclude_none=True)
def retrieve_endpoint(webhook_endpoint_id: str, caller: CurrentCaller, db: Db) -> EndpointOut:
    return EndpointOut.of(webhooks.get(db, caller.project_id, webhook_endpoint_id))


@router.post(ENDPOINT, response_model_exclude_none=True, dependencies=KNOWN)
def update_endpoint(
    webhook_endpoint_id: str, request: EndpointUpdate, caller: CurrentCaller, db: Db
) -> EndpointOut:
    """Change a name, a URL or the types of events. What waits for a new URL is sent there at once."""
    if request.url is not None:
        _check(request.url)
    wanted = request.model_dump()
    return EndpointOut.of(webhooks.change(db, caller.project_id, webhook_endpoint_id, **wanted))


@router.delete(ENDPOINT)
def delete_endpoint(webhook_endpoint_id: str, caller: CurrentCaller, db: Db) -> EndpointDeleted:
    """Delete an endpoint. What has not been delivered to it never will be."""
    webhooks.remove(db, caller.project_id, webhook_endpoint_id)
    return EndpointDeleted(id=webhook_endpoint_id)


@router.post(f"{ENDPOINT}/rotate_secret", response_model_exclude_none=True, dependencies=KNOWN)
def rotate_secret(
    webhook_endpoint_id: str, caller: CurrentCaller, db: Db, request: SecretRotation | None = None
) -> EndpointWithSecretOut:
    """Make a new signing secret, shown in this answer only."""
    keep = bool(request and request.keep_old_secret_active_for_24_hours)
    made = webhooks.rotate_secret(db, sealer(), caller.project_id, webhook_endpoint_id, keep_old=keep)
    return EndpointWithSecretOut.of_new(made)


@router.post(f"{ENDPOINT}/test", dependencies=KNOWN)
def test_endpoint(webhook_endpoint_id: str, request: EndpointTest, caller: CurrentCaller) -> EndpointTested:
    """Send a sample event now, once, and tell which status came back."""
    status_code = send_sample(caller.project_id, webhook_endpoint_id, request.event_type)
    return EndpointTested(
        event_type=request.event_type,
        status_code=status_code,
        webhook_endpoint_id=webhook_endpoint_id,
    )


@router.get(f"{ENDPOINT}/deliveries", openapi_extra={"x-cherry": True})
def list_deliveries(
    webhook_endpoint_id: str, caller: CurrentCaller, db: Db, after: Cursor = None, limit: Limit = 20
) -> DeliveryList:
    """What was told to an endpoint, newest first: attempts, the last answer, when the next try is."""
    page = webhooks.list_deliveries(db, caller.project_id, webhook_endpoint_id, after=after, limit=limit)
    return DeliveryList.of(page)


def _check(url: str) -> None:
    try:
        check_target(url, rules_of(get_settings()))
    except TargetRefused as refused:
        raise BadRequest(f"Invalid value for 'url': {refused}", param="url", code="invalid_value") from None
