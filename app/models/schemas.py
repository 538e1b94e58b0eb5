"""Models on the wire."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, Field

from app.models.models import Model


class ModelOut(BaseModel):
    """A base model or a fine-tuned one."""

    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str
    cannot_show: list[str] | None = Field(
        default=None,
        description=(
            "What the model's chat template cannot show the model, such as tools or thoughts; null where that"
            " is not known. Rows that have it are refused, or warned of."
        ),
    )

    methods: list[str] | None = Field(
        default=None,
        description="The methods that jobs may use with a base model; null for all.",
    )

    @classmethod
    def of(cls, model: Model, organization_id: str) -> ModelOut:
        owner = organization_id if model.project_id else "system"
        return cls(
            id=model.name,
            created=int(model.created_at.timestamp()),
            owned_by=owner,
            cannot_show=model.cannot_show,
            methods=model.methods,
        )


class ModelList(BaseModel):
    object: Literal["list"] = "list"
    data: list[ModelOut]


class ModelDeleted(BaseModel):
    id: str
    object: Literal["model"] = "model"
    deleted: bool = True
