"""Serves /v1/models."""

from __future__ import annotations

from fastapi import APIRouter

from app.http.transaction import CurrentCaller, Db, KeptRoute
from app.models import service as models
from app.models.schemas import ModelDeleted, ModelList, ModelOut

router = APIRouter(prefix="/v1/models", tags=["models"], route_class=KeptRoute)


@router.get("")
def list_models(caller: CurrentCaller, db: Db) -> ModelList:
    """Base models and the project's fine-tuned ones."""
    found = models.list_models(db, caller.project_id)
    return ModelList(data=[ModelOut.of(model, caller.organization_id) for model in found])


@router.get("/{model:path}")
def retrieve_model(model: str, caller: CurrentCaller, db: Db) -> ModelOut:
    return ModelOut.of(models.get(db, caller.project_id, model), caller.organization_id)


@router.delete("/{model:path}")
def delete_model(model: str, caller: CurrentCaller, db: Db) -> ModelDeleted:
    """Delete a fine-tuned model. Its job and checkpoints stay."""
    models.remove(db, caller.project_id, model)
    return ModelDeleted(id=model)
