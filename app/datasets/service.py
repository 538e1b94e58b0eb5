"""Data sets as their owners see them: create, read, cancel. workers/datasets makes them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import groupby

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import queue
from app.datasets.models import Dataset, DatasetSource
from app.datasets.runs import LEASES
from app.datasets.schemas import DatasetCreate
from app.errors import BadRequest, NotFound, TooManyJobs
from app.files import service as files
from app.ids import random_id
from app.jobs.leases import ACTIVE
from app.jobs.models import Job
from app.models import service as models
from app.pagination import MAX_NUMBER, Owned, Page, number_after, page_by_age
from app.tenants.models import Project


def create(db: Session, project_id: str, request: DatasetCreate, *, max_active: int) -> Dataset:
    """Queues a data set. Raises `BadRequest`, `NotFound` (the validation file) or `TooManyJobs`."""
    request.check()
    if request.validation_file is not None:
        files.for_job(db, project_id, request.validation_file, "validation_file")
    asked = request.model_dump()
    if (model := request.filter.model) is not None and (found := models.find(db, project_id, model)):
        asked["filter"]["model"] = found.name  # completions are told under the name, not the alias
    row = Dataset(id=random_id("dataset-"), project_id=project_id, request=asked)
    db.add(row)
    db.flush()
    _check_room(db, row, max_active)  # last, as others of the project wait until this transaction ends
    queue.wake_validator(db)
    return row


def get(db: Session, project_id: str, dataset_id: str) -> Dataset:
    """Returns a data set of the project. Raises `NotFound`."""
    mine = (Dataset.id == dataset_id, Dataset.project_id == project_id)
    found = db.scalars(select(Dataset).where(*mine)).first()
    if found is None:
        raise NotFound(f"No such dataset: {dataset_id}", param="dataset_id")
    return found


def list_datasets(
    db: Session, project_id: str, *, file_id: str | None, after: str | None, limit: int
) -> Page[Dataset]:
    """Returns data sets, newest first; of one file where `file_id` names it."""
    query = select(Dataset).where(Dataset.project_id == project_id)
    if file_id is not None:
        query = query.where(Dataset.file_id == file_id)
    of = Owned(Dataset.project_id, project_id)
    return page_by_age(db, query, of, after=after, limit=limit, newest_first=True)


def jobs_trained(db: Session, project_id: str, rows: Sequence[Dataset]) -> Mapping[str, list[Job]]:
    """Returns, by data set, the jobs of the project that train on its file, oldest first."""
    by_file = {row.file_id: row.id for row in rows if row.file_id is not None}
    mine = (Job.project_id == project_id, Job.training_file.in_(by_file))
    found: dict[str, list[Job]] = {row.id: [] for row in rows}
    for job in db.scalars(select(Job).where(*mine).order_by(Job.created_at, Job.id)):
        found[by_file[job.training_file]].append(job)
    return found


def list_rows(
    db: Session, dataset: Dataset, *, after: str | None, limit: int
) -> Page[Sequence[DatasetSource]]:
    """Returns where the rows of a data set came from, a page of its lines."""
    first = number_after(after) or 0
    last = min(first + limit, MAX_NUMBER)
    lines = (DatasetSource.line > first, DatasetSource.line <= last)
    query = select(DatasetSource).where(DatasetSource.dataset_id == dataset.id, *lines)
    ordered = db.scalars(query.order_by(DatasetSource.line, DatasetSource.part.desc())).all()
    by_line = groupby(ordered, key=lambda source: source.line)
    rows: list[Sequence[DatasetSource]] = [list(sources) for _, sources in by_line]
    return Page(rows, last < (dataset.report or {}).get("rows", 0))


def cancel(db: Session, project_id: str, dataset_id: str) -> Dataset:
    """Cancels a data set at once. Raises `NotFound`, or `BadRequest` if it is over."""
    row = get(db, project_id, dataset_id)
    if not LEASES.cancel(db, Dataset.id == dataset_id):
        db.refresh(row)
        if row.status != "cancelled":
            raise BadRequest(f"Dataset {dataset_id} has already {row.status}; it cannot be cancelled.")
    db.refresh(row)
    return row


def cancel_all(db: Session, project_id: str) -> None:
    """Cancels what a project has under way."""
    LEASES.cancel(db, Dataset.project_id == project_id)


def _check_room(db: Session, row: Dataset, max_active: int) -> None:
    """Counts under a lock on the project, so that two requests at once cannot both take the last place."""
    project = select(Project.id).where(Project.id == row.project_id)
    db.scalars(project.with_for_update(key_share=True)).one()
    mine = (Dataset.project_id == row.project_id, Dataset.id != row.id, Dataset.status.in_(ACTIVE))
    count = db.scalars(select(func.count()).select_from(Dataset).where(*mine)).one()
    if count >= max_active:
        raise TooManyJobs(f"This project has {count} unfinished data sets, and {max_active} is the maximum.")
