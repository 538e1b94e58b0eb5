"""Serves /v1/fine_tuning/jobs/{job_id}/rollouts and .../rows."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from app.http.transaction import CurrentCaller, Db, KeptRoute
from app.jobs import service as jobs
from app.pagination import Cursor, Limit, Number
from app.rollouts import rows
from app.rollouts import service as rollouts
from app.rollouts.schemas import RolloutList, RowList

router = APIRouter(prefix="/v1/fine_tuning/jobs/{job_id}", tags=["fine-tuning"], route_class=KeptRoute)

FewRows = Annotated[int, Query(ge=0, le=100, description="Most rows on the page.")]


@router.get("/rollouts", openapi_extra={"x-cherry": True})
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
    """Every completion with its grade, in the order of steps.

    `row` counts the file's rows from 0, `line` from 1.
    """
    job = jobs.get(db, caller.project_id, job_id)
    wanted = rollouts.Filter(split, step, epoch, row)
    return RolloutList.of(rollouts.list_rollouts(db, job.id, wanted, after=after, limit=limit))


@router.get("/rows", openapi_extra={"x-cherry": True})
def list_rows(
    job_id: str,
    caller: CurrentCaller,
    db: Db,
    first_epoch: Number = None,
    last_epoch: Number = None,
    after: Cursor = None,
    limit: FewRows = 20,
) -> RowList:
    """How each training row fared, epoch by epoch: at most 200 epochs, the newest unless `first_epoch` or
    `last_epoch` says otherwise.
    """
    job = jobs.get(db, caller.project_id, job_id)
    epochs = rows.Epochs(first_epoch, last_epoch)
    reward_range = (job.config or {}).get("reward_range")
    return RowList.of(rows.list_rows(db, job.id, epochs, reward_range, after=after, limit=limit))
