"""Erases a project: its rows in every table, its bytes in storage, and what lies on this machine.

The project is closed first, and its jobs are cancelled. Then one transaction takes all rows and leaves the
places of their bytes in `loose_bytes`, so that whoever is killed on the way leaves nothing that nobody finds:
the command can be repeated, and the workers' sweep removes what is loose.
"""

from __future__ import annotations

import shutil
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from sqlalchemy import ColumnElement, FromClause, Table, and_, delete, func, literal, or_, select
from sqlalchemy.orm import Session

from app.datasets import service as datasets
from app.db import Base
from app.erasures import service as erasures
from app.errors import BadRequest, NotFound
from app.evals import run_service as eval_runs
from app.files import service as files
from app.files.models import File, LooseBytes
from app.idempotency.models import IdempotencyKey
from app.jobs import control
from app.jobs.models import ACTIVE, Job
from app.jobs.status import MoveRefused
from app.preflights import service as preflights
from app.regrades import service as regrades
from app.tenants.models import Project
from app.uploads.models import Upload

LOCAL = ("runs", "wandb", "tensorboard")
"""Folders of a machine's data folder in which jobs leave something under their ids."""


class Holdings(NamedTuple):
    """What there is to lose."""

    name: str
    rows: dict[str, int]
    """By table; those that are empty are left out."""


class Erased(NamedTuple):
    """What is left to remove once the rows are gone."""

    keys: list[str]
    """Places in storage, as `loose_bytes` has them."""
    job_ids: list[str]


def holdings(db: Session, project_id: str) -> Holdings:
    """Counts what a project has. Raises `NotFound`."""
    project = _project(db, project_id, key_share=True)
    counted = {
        table.name: db.scalars(select(func.count()).select_from(table).where(mine)).one()
        for table, mine in owned_rows(project_id)
    }
    return Holdings(project.name, {name: count for name, count in counted.items() if count})


def close(db: Session, project_id: str) -> list[str]:
    """Ends a project's keys, and cancels all its work. Returns the jobs at which a worker still is.

    It may be called again and again: a job whose worker is lost is cancelled once its lease is over. Raises
    `NotFound`.
    """
    project = _project(db, project_id, key_share=True)
    if project.archived_at is None:
        project.archived_at = db.scalars(select(func.now())).one()
    preflights.cancel_all(db, project_id)
    eval_runs.cancel_all(db, project_id)
    regrades.cancel_all(db, project_id)
    datasets.cancel_all(db, project_id)
    active = select(Job.id).where(Job.project_id == project_id, Job.status.in_(ACTIVE)).order_by(Job.id)
    at_work = []
    for job_id in db.scalars(active).all():
        with suppress(MoveRefused):  # it was over before it could be cancelled
            if control.request_cancel(db, job_id).status in ACTIVE:
                at_work.append(job_id)
    return at_work


def erase(db: Session, project_id: str) -> Erased:
    """Deletes every row of a closed project, and writes down how many. Commit it, then `remove_bytes`.

    Raises `NotFound`, or `BadRequest` while a job is not over.
    """
    project = _project(db, project_id)  # locked: what refers to it can neither come nor go meanwhile
    active = db.scalars(select(Job.id).where(Job.project_id == project_id, Job.status.in_(ACTIVE))).all()
    if active or project.archived_at is None:
        raise BadRequest(f"Project {project_id} is still at work: {', '.join(active) or 'it is not closed'}.")
    organization_id = project.organization_id
    job_ids = list(db.scalars(select(Job.id).where(Job.project_id == project_id)))
    upload_ids = db.scalars(select(Upload.id).where(Upload.project_id == project_id)).all()
    keys = list(db.scalars(select(File.storage_key).where(File.project_id == project_id)))
    keys += [f"jobs/{job_id}/" for job_id in job_ids] + [f"uploads/{upload_id}/" for upload_id in upload_ids]
    counted = holdings(db, project_id).rows
    _forget_responses(db, project)
    for table, mine in owned_rows(project_id):
        db.execute(delete(table).where(mine))
    db.add_all(LooseBytes(key=key, clear_at=func.now(), is_taken=True) for key in keys)
    db.flush()
    erasures.note_project(db, organization_id, project_id, counted)
    return Erased(keys, job_ids)


def remove_bytes(erased: Erased, data_dir: Path) -> None:
    """Removes what an erased project had in storage and in this machine's data folder."""
    for key in erased.keys:
        files.remove_bytes(key)
    for folder in LOCAL:
        for path in _named_after(data_dir / folder, erased.job_ids):
            shutil.rmtree(path, ignore_errors=True)


def forget(db: Session, erased: Erased) -> None:
    """Forgets the places whose bytes were removed."""
    files.forget_loose(db, erased.keys)


def _named_after(folder: Path, job_ids: Collection[str]) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_dir() and path.name.endswith(tuple(job_ids))]


def _project(db: Session, project_id: str, *, key_share: bool = False) -> Project:
    """Returns a project, locked. With `key_share` rows that refer to it may still come, as from a run."""
    query = select(Project).where(Project.id == project_id).with_for_update(key_share=key_share)
    found = db.scalars(query).first()
    if found is None:
        raise NotFound(f"No such project: {project_id}", param="project_id")
    return found


def _forget_responses(db: Session, project: Project) -> None:
    """Deletes the responses that are kept for `Idempotency-Key`s: to the project, and to admins about it."""
    about = func.position(literal(project.id.encode()).op("IN")(IdempotencyKey.body)) > 0
    owner = IdempotencyKey.owner
    mine = or_(owner == project.id, and_(owner == project.organization_id, about))
    db.execute(delete(IdempotencyKey).where(mine))


def owned_rows(project_id: str) -> Iterator[tuple[Table, ColumnElement[bool]]]:
    """Yields the tables whose rows lead to a project, with the condition of those rows.

    They come in an order in which they can be emptied. Every table that refers to a project, however far, is
    among them by its foreign keys: a new one cannot be forgotten. (app/tables.py has been imported.)
    """
    for table in reversed(Base.metadata.sorted_tables):
        if (condition := _owned(table, project_id)) is not None:
            yield table, condition


def _owned(table: FromClause, project_id: str) -> ColumnElement[bool] | None:
    """Returns the condition of a project's rows of a table; None if no foreign key leads to projects."""
    if table is Project.__table__:
        return Project.id == project_id
    ways: list[ColumnElement[bool]] = []
    for key in sorted(table.foreign_keys, key=lambda key: key.parent.name):
        above = _owned(key.column.table, project_id)
        if above is not None:
            ways.append(key.parent.in_(select(key.column).where(above)))
    return or_(*ways) if ways else None
