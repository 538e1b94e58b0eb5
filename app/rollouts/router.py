"""Serves /v1/fine_tuning/jobs/{job_id}/rollouts."""

from __future__ import annotations

from fastapi import APIRouter

from app.http.transaction import CurrentCaller, Db, KeptRoute
from app.jobs import service as jobs
from app.pagination import Cursor, Limit, Number
from app.rollouts import service as rollouts
from app.rollouts.schemas import RolloutList

router = APIRouter(
    prefix="/v1/fine_tuning/jobs/{job_id}/rollouts", tags=["fine-tuning"], route_class=KeptRoute
)


@router.get("", openapi_extra={"x-cherry": True})
def list_rollouts(
    job_id: str,
    caller: CurrentCaller,
    db: Db,
    split: rollouts.Split = "train",
    step: Number = None,
    epoch: Number = None,
    row: Number = None,
    after: Cursor = None,
    limit: Limit = 100,
) -> RolloutList:
    """Every completion with its grade, in the order of steps. `row` counts the file's rows from 0."""
    job = jobs.get(db, caller.project_id, job_id)
    wanted = rollouts.Filter(split, step, epoch, row)
    return RolloutList.of(rollouts.list_rollouts(db, job.id, wanted, after=after, limit=limit))
