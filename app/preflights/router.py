"""Serves /v1/fine_tuning/jobs/preflight and /v1/fine_tuning/preflights."""

from __future__ import annotations

from fastapi import APIRouter

from app.http.transaction import CurrentCaller, Db, KeptRoute
from app.jobs import capacity
from app.pagination import Cursor, Limit
from app.preflights import service as preflights
from app.preflights.schemas import PreflightCreate, PreflightList, PreflightOut
from app.settings import get_settings

router = APIRouter(prefix="/v1/fine_tuning", tags=["fine-tuning"], route_class=KeptRoute)

OURS = {"x-cherry": True}
PREFLIGHT = "/preflights/{preflight_id}"


@router.post("/jobs/preflight", openapi_extra=OURS)
def create_preflight(request: PreflightCreate, caller: CurrentCaller, db: Db) -> PreflightOut:
    """Look at what a job would meet, without starting it. The body is that of a job creation."""
    settings = get_settings()
    preflight = preflights.create(
        db,
        caller.project_id,
        request,
        max_active=settings.max_active_jobs,
        max_processes=capacity.max_processes(settings),
        max_gpus=capacity.max_gpus(settings),
    )
    return PreflightOut.of(preflight)


@router.get("/preflights", openapi_extra=OURS)
def list_preflights(caller: CurrentCaller, db: Db, after: Cursor = None, limit: Limit = 20) -> PreflightList:
    """Preflights, newest first."""
    return PreflightList.of(preflights.list_preflights(db, caller.project_id, after=after, limit=limit))


@router.get(PREFLIGHT, openapi_extra=OURS)
def retrieve_preflight(preflight_id: str, caller: CurrentCaller, db: Db) -> PreflightOut:
    """A preflight, with what it has found so far."""
    return PreflightOut.of(preflights.get(db, caller.project_id, preflight_id))


@router.post(f"{PREFLIGHT}/cancel", openapi_extra=OURS)
def cancel_preflight(preflight_id: str, caller: CurrentCaller, db: Db) -> PreflightOut:
    """Stop a preflight. What it has found so far stays."""
    return PreflightOut.of(preflights.cancel(db, caller.project_id, preflight_id))
