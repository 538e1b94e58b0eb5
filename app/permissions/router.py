"""Serves /v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from app.db import unit_of_work
from app.http.transaction import CurrentActor, Db, KeptRoute
from app.pagination import MAX_CURSOR, Cursor, Limit
from app.permissions import service as permissions
from app.permissions.schemas import PermissionCreate, PermissionDeleted, PermissionList

router = APIRouter(
    prefix="/v1/fine_tuning/checkpoints/{fine_tuned_model_checkpoint}/permissions",
    tags=["fine-tuning"],
    route_class=KeptRoute,
)


def known(fine_tuned_model_checkpoint: str, actor: CurrentActor) -> None:
    """Refuses a checkpoint that is not there. A dependency is asked before the body is looked at."""
    with unit_of_work() as db:
        permissions.managed(db, actor, fine_tuned_model_checkpoint)


@router.post("", dependencies=[Depends(known)])
def create_permissions(
    fine_tuned_model_checkpoint: str, request: PermissionCreate, actor: CurrentActor, db: Db
) -> PermissionList:
    """Let other projects of the organisation use a checkpoint. Takes a project's key or an admin key."""
    return PermissionList.of(permissions.grant(db, actor, fine_tuned_model_checkpoint, request.project_ids))


@router.get("")
def list_permissions(
    fine_tuned_model_checkpoint: str,
    actor: CurrentActor,
    db: Db,
    after: Cursor = None,
    limit: Limit = 10,
    order: permissions.Order = "descending",
    project_id: Annotated[str | None, Query(max_length=MAX_CURSOR)] = None,
) -> PermissionList:
    """Which projects may use a checkpoint, by age."""
    page = permissions.list_granted(
        db,
        actor,
        fine_tuned_model_checkpoint,
        project_id=project_id,
        order=order,
        after=after,
        limit=limit,
    )
    return PermissionList.of(page.rows, page.has_more)


@router.delete("/{permission_id}")
def delete_permission(
    fine_tuned_model_checkpoint: str, permission_id: str, actor: CurrentActor, db: Db
) -> PermissionDeleted:
    """Take a permission back."""
    permissions.revoke(db, actor, fine_tuned_model_checkpoint, permission_id)
    return PermissionDeleted(id=permission_id)
