"""Serves /v1/datasets."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.datasets.models import Dataset
from app.datasets.schemas import DatasetCreate, DatasetList, DatasetOut, DatasetRowList
from app.http.transaction import CurrentCaller, Db, KeptRoute
from app.pagination import MAX_CURSOR, Cursor, Limit
from app.settings import get_settings

router = APIRouter(prefix="/v1/datasets", tags=["flywheel"], route_class=KeptRoute)

OURS = {"x-cherry": True}
DATASET = "/{dataset_id}"


@router.post("/from-stored", openapi_extra=OURS)
def create_dataset(request: DatasetCreate, caller: CurrentCaller, db: Db) -> DatasetOut:
    """Have a training file made of stored chat completions and the feedback on them."""
    made = datasets.create(db, caller.project_id, request, max_active=get_settings().max_active_jobs)
    return DatasetOut.of(made)


@router.get("", openapi_extra=OURS)
def list_datasets(
    caller: CurrentCaller,
    db: Db,
    file_id: Annotated[str | None, Query(max_length=MAX_CURSOR)] = None,
    after: Cursor = None,
    limit: Limit = 20,
) -> DatasetList:
    """Data sets, newest first. `file_id` finds the one that made a file."""
    page = datasets.list_datasets(db, caller.project_id, file_id=file_id, after=after, limit=limit)
    jobs = datasets.jobs_trained(db, caller.project_id, page.rows)
    return DatasetList.holding([DatasetOut.of(row, jobs[row.id]) for row in page.rows], page.has_more)


@router.get(DATASET, openapi_extra=OURS)
def retrieve_dataset(dataset_id: str, caller: CurrentCaller, db: Db) -> DatasetOut:
    """A data set: what is in its file and where that came from, and the jobs that train on it."""
    return _shown(db, datasets.get(db, caller.project_id, dataset_id))


@router.get(f"{DATASET}/rows", openapi_extra=OURS)
def list_dataset_rows(
    dataset_id: str, caller: CurrentCaller, db: Db, after: Cursor = None, limit: Limit = 100
) -> DatasetRowList:
    """Where each row came from: completion, model and feedback, in the order of the file's lines."""
    row = datasets.get(db, caller.project_id, dataset_id)
    return DatasetRowList.of(datasets.list_rows(db, row, after=after, limit=limit))


@router.post(f"{DATASET}/cancel", openapi_extra=OURS)
def cancel_dataset(dataset_id: str, caller: CurrentCaller, db: Db) -> DatasetOut:
    """Stop making a data set."""
    return _shown(db, datasets.cancel(db, caller.project_id, dataset_id))


def _shown(db: Session, row: Dataset) -> DatasetOut:
    return DatasetOut.of(row, datasets.jobs_trained(db, row.project_id, [row])[row.id])
