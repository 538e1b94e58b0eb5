"""Checkpoint permissions on the wire."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from app.pagination import Listed
from app.permissions.models import CheckpointPermission


class PermissionCreate(BaseModel):
    model_config = ConfigDict(extra="forbid")

    project_ids: Annotated[list[str], Field(min_length=1, max_length=100)]


class PermissionOut(BaseModel):
    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    created_at: int
    project_id: str

    @classmethod
    def of(cls, row: CheckpointPermission) -> PermissionOut:
        created = int(row.created_at.timestamp())
        return cls(id=row.id, created_at=created, project_id=row.project_id)


class PermissionList(Listed[PermissionOut]):
    @classmethod
    def of(cls, rows: Sequence[CheckpointPermission], has_more: bool = False) -> PermissionList:
        return cls.holding([PermissionOut.of(row) for row in rows], has_more)


class PermissionDeleted(BaseModel):
    id: str
    object: Literal["checkpoint.permission"] = "checkpoint.permission"
    deleted: bool = True
