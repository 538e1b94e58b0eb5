"""Serves webhook endpoints and what was delivered to them."""

from __future__ import annotations

from typing import Annotated, cast

from fastapi import APIRouter, Form, Request, Response
from starlette.concurrency import run_in_threadpool

from app.dashboard import sign_in
from app.dashboard.shown import FROM_HERE, page, to_login
from app.db import unit_of_work
from app.errors import ApiError, BadRequest
from app.pagination import Cursor
from app.webhooks import service as webhooks
from app.webhooks.event_types import EVENT_TYPES, EventType
from app.webhooks.sample import send_sample

PAGE = 50

router = APIRouter()


@router.get("/webhooks")
def endpoint_list(request: Request) -> Response:
    """Shows endpoints, newest first."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        shown = webhooks.list_endpoints(db, project.id, after=None, limit=webhooks.MAX_ENDPOINTS)
        return page(request, project, "library/webhooks.html", endpoints=shown.rows)


@router.get("/webhooks/{endpoint_id}")
def endpoint_page(request: Request, endpoint_id: str, after: Cursor = None) -> Response:
    """Shows the deliveries to an endpoint, newest first."""
    with unit_of_work() as db:
        if (project := sign_in.signed_in(request, db)) is None:
            return to_login(request)
        endpoint = webhooks.get(db, project.id, endpoint_id)
        shown = webhooks.list_deliveries(db, project.id, endpoint_id, after=after, limit=PAGE)
        return page(
            request,
            project,
            "library/webhook.html",
            endpoint=endpoint,
            deliveries=shown.rows,
            more=shown.has_more,
        )


@router.post("/webhooks/{endpoint_id}/test", dependencies=FROM_HERE)
async def send_test(
    request: Request, endpoint_id: str, event_type: Annotated[str, Form(max_length=64)]
) -> Response:
    """Sends a sample event once, as the API does, and says what came back."""

    def send() -> Response:
        with unit_of_work() as db:
            owner = sign_in.owner(request, db)
            if owner is None:
                return to_login(request)
            webhooks.get(db, owner.project.id, endpoint_id)
        status, problem = None, None
        try:
            if event_type not in EVENT_TYPES:
                raise BadRequest(f"There is no event of the type '{event_type}'.", param="event_type")
            status = send_sample(owner.project.id, endpoint_id, cast(EventType, event_type))
        except ApiError as refused:
            problem = refused
        return page(request, owner.project, "library/webhook_test.html", status=status, problem=problem)

    return await run_in_threadpool(send)
