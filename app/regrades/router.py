"""Serves /v1/fine_tuning/jobs/{job_id}/regrade and /v1/regrades."""

from __future__ import annotations

from fastapi import APIRouter, Depends

from app.db import unit_of_work
from app.http.transaction import CurrentCaller, Db, KeptRoute
from app.jobs import service as jobs
from app.pagination import Cursor, Limit
from app.regrades import service as regrades
from app.regrades.schemas import (
    JobRegradeCreate,
    RegradeCreate,
    RegradeList,
    RegradeOut,
    ResultList,
    ResultOut,
)
from app.settings import get_settings

router = APIRouter(prefix="/v1", tags=["regrades"], route_class=KeptRoute)

OURS = {"x-cherry": True}
REGRADE = "/regrades/{regrade_id}"


def known(job_id: str, caller: CurrentCaller) -> None:
    """Refuses a job that is not there. A dependency is asked before the body is looked at."""
    with unit_of_work() as db:
        jobs.get(db, caller.project_id, job_id)


@router.post("/fine_tuning/jobs/{job_id}/regrade", openapi_extra=OURS, dependencies=[Depends(known)])
def regrade_job(job_id: str, request: JobRegradeCreate, caller: CurrentCaller, db: Db) -> RegradeOut:
    """Grade a job's stored completions with another grader, and compare the two."""
    most = get_settings().max_active_jobs
    return RegradeOut.of(regrades.create_of_job(db, caller.project_id, job_id, request, max_active=most))


@router.post("/regrades", openapi_extra=OURS)
def regrade_stored(request: RegradeCreate, caller: CurrentCaller, db: Db) -> RegradeOut:
    """Grade stored chat completions, and compare two graders where there is a `baseline`."""
    most = get_settings().max_active_jobs
    return RegradeOut.of(regrades.create_of_stored(db, caller.project_id, request, max_active=most))


@router.get("/regrades", openapi_extra=OURS)
def list_regrades(
    caller: CurrentCaller, db: Db, job_id: str | None = None, after: Cursor = None, limit: Limit = 20
) -> RegradeList:
    """Regrades, newest first; those of one job with `job_id`."""
    page = regrades.list_regrades(db, caller.project_id, job_id=job_id, after=after, limit=limit)
    return RegradeList.of(page)


@router.get(REGRADE, openapi_extra=OURS)
def retrieve_regrade(regrade_id: str, caller: CurrentCaller, db: Db) -> RegradeOut:
    """A regrade, with its comparison once it has succeeded."""
    return RegradeOut.of(regrades.get(db, caller.project_id, regrade_id))


@router.post(f"{REGRADE}/cancel", openapi_extra=OURS)
def cancel_regrade(regrade_id: str, caller: CurrentCaller, db: Db) -> RegradeOut:
    """Stop a regrade. What was graded so far stays."""
    return RegradeOut.of(regrades.cancel(db, caller.project_id, regrade_id))


@router.get(f"{REGRADE}/results", openapi_extra=OURS)
def list_results(
    regrade_id: str,
    caller: CurrentCaller,
    db: Db,
    order: regrades.ResultOrder = "graded",
    after: Cursor = None,
    limit: Limit = 20,
) -> ResultList:
    """Each completion with both grades; with `order=difference` those first in which the graders differ
    most."""
    regrade = regrades.get(db, caller.project_id, regrade_id)
    page = regrades.list_results(db, regrade, order=order, after=after, limit=limit)
    texts = regrades.texts_of(db, regrade, page.rows)
    return ResultList.holding([ResultOut.of(row, texts.get(row.ref)) for row in page.rows], page.has_more)
