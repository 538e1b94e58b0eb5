"""Says who else may use a checkpoint: its owner's project or the organisation's admin grants it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from sqlalchemy import ColumnElement, and_, delete, or_, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.auth import AdminCaller, Caller
from app.checkpoints.models import Checkpoint
from app.errors import BadRequest, NotFound
from app.ids import random_id
from app.jobs.models import Job
from app.models.models import Model
from app.pagination import Owned, Page, page_by_age
from app.permissions.models import CheckpointPermission
from app.tenants.models import Project

Order = Literal["ascending", "descending"]


def grant(
    db: Session, actor: Caller | AdminCaller, model_name: str, project_ids: Sequence[str]
) -> list[CheckpointPermission]:
    """Lets these projects of the organisation use the checkpoint; those that may already stay as they are.

    Raises `NotFound`, or `BadRequest` for a project that the organisation does not have.
    """
    checkpoint = managed(db, actor, model_name)
    if checkpoint.storage_key is None:
        raise BadRequest(f"The checkpoint '{model_name}' is not kept any more.")
    _check_projects(db, actor.organization_id, project_ids)
    wanted = list(dict.fromkeys(project_ids))
    values = [{"id": random_id("cp_"), "checkpoint_id": checkpoint.id, "project_id": each} for each in wanted]
    db.execute(insert(CheckpointPermission).values(values).on_conflict_do_nothing())
    of_checkpoint = CheckpointPermission.checkpoint_id == checkpoint.id
    granted = select(CheckpointPermission).where(of_checkpoint, CheckpointPermission.project_id.in_(wanted))
    by_project = {row.project_id: row for row in db.scalars(granted)}
    return [by_project[each] for each in wanted]


def list_granted(
    db: Session,
    actor: Caller | AdminCaller,
    model_name: str,
    *,
    project_id: str | None,
    order: Order,
    after: str | None,
    limit: int,
) -> Page[CheckpointPermission]:
    """Lists a checkpoint's permissions by age. Raises `NotFound`."""
    checkpoint = managed(db, actor, model_name)
    table = CheckpointPermission
    query = select(table).where(table.checkpoint_id == checkpoint.id)
    if project_id is not None:
        query = query.where(table.project_id == project_id)
    of = Owned(table.checkpoint_id, checkpoint.id)
    return page_by_age(db, query, of, after=after, limit=limit, newest_first=order == "descending")


def revoke(db: Session, actor: Caller | AdminCaller, model_name: str, permission_id: str) -> None:
    """Takes a permission back, from the next request on. Raises `NotFound`."""
    checkpoint = managed(db, actor, model_name)
    own = (CheckpointPermission.id == permission_id, CheckpointPermission.checkpoint_id == checkpoint.id)
    gone = db.scalars(delete(CheckpointPermission).where(*own).returning(CheckpointPermission.id)).first()
    if gone is None:
        raise NotFound(f"No such permission: {permission_id}", param="permission_id")


def managed(db: Session, actor: Caller | AdminCaller, name: str) -> Checkpoint:
    """Returns a checkpoint by its own name, or by that of the tuned model that was made of it.

    Raises `NotFound`, also where the actor may not say who else uses it.
    """
    tuned = and_(Model.job_id == Checkpoint.job_id, Model.storage_key == Checkpoint.storage_key)
    query = (
        select(Checkpoint).join(Job, Job.id == Checkpoint.job_id).join(Project, Project.id == Job.project_id)
    )
    query = query.outerjoin(Model, tuned).where(or_(Checkpoint.model_name == name, Model.name == name))
    checkpoint = db.scalars(query.where(_manages(actor))).first()
    if checkpoint is None:
        message = f"The checkpoint '{name}' does not exist or you do not have access to it."
        raise NotFound(message, param="fine_tuned_model_checkpoint", code="model_not_found")
    return checkpoint


def _manages(actor: Caller | AdminCaller) -> ColumnElement[bool]:
    if isinstance(actor, Caller):
        return Project.id == actor.project_id
    return Project.organization_id == actor.organization_id


def _check_projects(db: Session, organization_id: str, project_ids: Sequence[str]) -> None:
    own = (Project.organization_id == organization_id, Project.archived_at.is_(None))
    known = set(db.scalars(select(Project.id).where(*own, Project.id.in_(project_ids))))
    for place, project_id in enumerate(project_ids):
        if project_id not in known:
            message = f"The organization has no active project '{project_id}'."
            raise BadRequest(message, param=f"project_ids[{place}]", code="invalid_value")
