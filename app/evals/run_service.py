"""Runs of evals as their owners see them: create, read, cancel, delete. The worker's side is runs.py."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ColumnElement, func, select, update
from sqlalchemy.orm import Session

from app import queue
from app.errors import BadRequest, NotFound, TooManyJobs
from app.evals import answerers, data_sources, service
from app.evals.models import ACTIVE, WAITING, EvalOutputItem, EvalRun, ItemStatus, Status
from app.evals.runs import OVER, tell
from app.evals.schemas import RunCreate
from app.evals.service import Order
from app.files import service as files
from app.ids import random_id
from app.pagination import Owned, Page, fetch_page, page_by_age
from app.settings import Settings
from app.tenants.models import Project

UNNAMED = "Run"
SOURCE_ID = f"{data_sources.SOURCE}.id"


def create(db: Session, project_id: str, eval_id: str, request: RunCreate, settings: Settings) -> EvalRun:
    """Checks a request as far as that needs no row of the data, and queues the run.

    Raises `BadRequest`, `NotFound` (the eval, a file, a model), `Unavailable` where the service runs no
    models, or `TooManyJobs`.
    """
    found = service.get(db, project_id, eval_id)
    source = request.data_source
    data_sources.check(source)
    _check_file(db, project_id, source["source"])
    answerer = answerers.find(db, project_id, source, settings)
    run = EvalRun(
        id=random_id("evalrun_"),
        eval_id=found.id,
        project_id=project_id,
        name=request.name or UNNAMED,
        model=answerer.model if answerer else "",
        meta=request.metadata,
        data_source=source,
    )
    db.add(run)
    db.flush()
    _check_room(db, run, settings.max_active_jobs)  # last: others of the project wait until this one ends
    queue.wake_evaluator(db)
    return run


def get(db: Session, project_id: str, eval_id: str, run_id: str) -> EvalRun:
    """Returns a run of the eval. Raises `NotFound`."""
    service.get(db, project_id, eval_id)
    run = db.scalars(select(EvalRun).where(EvalRun.id == run_id, EvalRun.eval_id == eval_id)).first()
    if run is None:
        raise NotFound(f"No such eval run: {run_id}", param="run_id", code="eval_run_not_found")
    return run


def list_runs(
    db: Session,
    project_id: str,
    eval_id: str,
    *,
    status: Status | None,
    after: str | None,
    limit: int,
    order: Order,
) -> Page[EvalRun]:
    """Returns the runs of an eval by age. Raises `NotFound`."""
    service.get(db, project_id, eval_id)
    query = select(EvalRun).where(EvalRun.eval_id == eval_id)
    if status is not None:
        query = query.where(EvalRun.status == status)
    of = Owned(EvalRun.eval_id, eval_id)
    return page_by_age(db, query, of, after=after, limit=limit, newest_first=order == "desc")


def cancel(db: Session, project_id: str, eval_id: str, run_id: str) -> EvalRun:
    """Cancels a run at once; a worker that is at it sees that within a second, and drops it.

    What was judged so far stays. Raises `NotFound`, or `BadRequest` if it is over.
    """
    run = get(db, project_id, eval_id, run_id)
    if not _cancel(db, EvalRun.id == run_id):
        db.refresh(run)
        if run.status != "canceled":
            raise BadRequest(f"Eval run {run_id} has already {run.status}; it cannot be canceled.")
    db.refresh(run)
    return run


def cancel_all(db: Session, project_id: str) -> None:
    """Cancels what a project has under way."""
    _cancel(db, EvalRun.project_id == project_id)


def remove(db: Session, project_id: str, eval_id: str, run_id: str) -> None:
    """Deletes a run with its items; a worker that is at it stops. Raises `NotFound`."""
    db.delete(get(db, project_id, eval_id, run_id))
    db.flush()


def list_items(
    db: Session,
    project_id: str,
    eval_id: str,
    run_id: str,
    *,
    status: ItemStatus | None,
    after: str | None,
    limit: int,
    order: Order,
) -> tuple[EvalRun, Page[EvalOutputItem]]:
    """Returns a run, and what was judged so far, in the order of the data. Raises `NotFound`."""
    run = get(db, project_id, eval_id, run_id)
    query = select(EvalOutputItem).where(EvalOutputItem.run_id == run_id)
    query = query.where(EvalOutputItem.status == status if status else EvalOutputItem.status != WAITING)
    place = Owned(EvalOutputItem.run_id, run_id).place(db, after, ("seq",)) if after else None
    seq = EvalOutputItem.seq
    if place:
        query = query.where(seq > place[0] if order == "asc" else seq < place[0])
    return run, fetch_page(db, query.order_by(seq.asc() if order == "asc" else seq.desc()), limit)


def get_item(
    db: Session, project_id: str, eval_id: str, run_id: str, item_id: str
) -> tuple[EvalRun, EvalOutputItem]:
    """Returns a run, and an item of it that was judged. Raises `NotFound`."""
    run = get(db, project_id, eval_id, run_id)
    mine = (EvalOutputItem.id == item_id, EvalOutputItem.run_id == run_id, EvalOutputItem.status != WAITING)
    item = db.scalars(select(EvalOutputItem).where(*mine)).first()
    if item is None:
        message = f"No such output item: {item_id}"
        raise NotFound(message, param="output_item_id", code="output_item_not_found")
    return run, item


def _cancel(db: Session, which: ColumnElement[bool]) -> bool:
    over = {"status": "canceled", "finished_at": func.now(), **OVER}
    statement = update(EvalRun).where(which, EvalRun.status.in_(ACTIVE)).values(over).returning(EvalRun)
    canceled = db.scalars(statement, execution_options={"populate_existing": True}).all()
    for run in canceled:
        tell(db, run)
    return bool(canceled)


def _check_file(db: Session, project_id: str, source: dict[str, Any]) -> None:
    """Raises `NotFound` unless the project has the file that is named, if one is."""
    if source["type"] == "file_id":
        try:
            files.get(db, project_id, source["id"])
        except NotFound as fault:
            raise NotFound(fault.message, param=SOURCE_ID) from None


def _check_room(db: Session, run: EvalRun, max_active: int) -> None:
    """Counts under a lock on the project, so that two requests at once cannot both take the last place."""
    project = select(Project.id).where(Project.id == run.project_id)
    db.scalars(project.with_for_update(key_share=True)).one()
    mine = EvalRun.project_id == run.project_id, EvalRun.id != run.id, EvalRun.status.in_(ACTIVE)
    count = db.scalars(select(func.count()).select_from(EvalRun).where(*mine)).one()
    if count >= max_active:
        raise TooManyJobs(f"This project has {count} unfinished eval runs, and {max_active} is the maximum.")
