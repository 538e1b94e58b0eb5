"""Models on the wire."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel

from app.models.models import Model


class ModelOut(BaseModel):
    """A base model or a fine-tuned one."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str

    @classmethod
    def of(cls, model: Model, organization_id: str) -> ModelOut:
        owner = organization_id if model.project_id else "system"
        return cls(id=model.name, created=int(model.created_at.timestamp()), owned_by=owner)


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelOut]


class ModelDeleted(BaseModel):
    id: str
    object: Literal["model"] = "model"
    deleted: bool = True
