"""Evals as their owners see them: create, read, change, delete. Their runs are in run_service.py."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.errors import BadRequest, NotFound, Refusals
from app.evals import criteria, item_schemas
from app.evals.data_sources import kind_of
from app.evals.models import Eval
from app.evals.schemas import CustomConfig, EvalCreate, EvalUpdate, LogsConfig
from app.ids import random_id
from app.pagination import Owned, Page, page_by_age
from app.validation_errors import read_as

Order = Literal["asc", "desc"]
OrderBy = Literal["created_at", "updated_at"]
CONFIG = "data_source_config"
CONFIGS = ("custom", "logs", "stored_completions")
UNNAMED = "Eval"
SAMPLE_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "model": {"type": "string"},
        "choices": {"type": "array", "items": {"type": "object"}},
        "output_text": {"type": "string"},
        "output_json": {},
        "output_tools": {"type": "array", "items": {"type": "object"}},
    },
    "required": ["output_text"],
}
"""What graders can read of an answer."""
LOGGED_SCHEMA: Mapping[str, Any] = {
    "type": "object",
    "properties": {
        "id": {"type": "string"},
        "model": {"type": "string"},
        "input": {"type": "array", "items": {"type": "object"}},
        "metadata": {"type": "object"},
    },
    "required": ["id", "model", "input"],
}
"""The item that a stored completion or response is."""


def create(db: Session, project_id: str, request: EvalCreate) -> Eval:
    """Makes an eval. Raises `BadRequest` with all that is wrong."""
    refusals = Refusals()
    with refusals:
        config = told_config(request.data_source_config)
    with refusals:
        checked = criteria.checked(request.testing_criteria, project_id)
    refusals.raise_any()
    row = Eval(
        id=random_id("eval_"),
        project_id=project_id,
        name=request.name or UNNAMED,
        meta=request.metadata,
        data_source_config=config,
        testing_criteria=checked,
    )
    db.add(row)
    db.flush()
    return row


def get(db: Session, project_id: str, eval_id: str) -> Eval:
    """Returns an eval of the project. Raises `NotFound`."""
    row = db.scalars(select(Eval).where(Eval.id == eval_id, Eval.project_id == project_id)).first()
    if row is None:
        raise NotFound(f"No such eval: {eval_id}", param="eval_id", code="eval_not_found")
    return row


def list_evals(
    db: Session, project_id: str, *, after: str | None, limit: int, order: Order, order_by: OrderBy
) -> Page[Eval]:
    """Returns evals by when they were made, or last changed."""
    query = select(Eval).where(Eval.project_id == project_id)
    of = Owned(Eval.project_id, project_id)
    newest_first = order == "desc"
    return page_by_age(db, query, of, after=after, limit=limit, newest_first=newest_first, by=order_by)


def change(db: Session, project_id: str, eval_id: str, request: EvalUpdate) -> Eval:
    """Changes what a request names of an eval. Raises `NotFound`."""
    row = get(db, project_id, eval_id)
    if request.name is not None:
        row.name = request.name
    if "metadata" in request.model_fields_set:
        row.meta = request.metadata
    row.updated_at = db.scalars(select(func.now())).one()
    db.flush()
    return row


def remove(db: Session, project_id: str, eval_id: str) -> None:
    """Deletes an eval with its runs; a run that a worker is at stops. Raises `NotFound`."""
    db.delete(get(db, project_id, eval_id))
    db.flush()


def told_config(raw: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a data source config as it is told: with the schema of item and sample. Raises `BadRequest`."""
    if kind_of(raw, CONFIGS, CONFIG) == "custom":
        read = read_as(CustomConfig, raw, CONFIG)
        _check_schema(read.item_schema)
        return {"type": "custom", "schema": whole_schema(read.item_schema, read.include_sample_schema)}
    logs = read_as(LogsConfig, raw, CONFIG)
    metadata = {} if logs.metadata is None else {"metadata": logs.metadata}
    return {"type": logs.type, **metadata, "schema": whole_schema(LOGGED_SCHEMA, with_sample=True)}


def whole_schema(item_schema: Mapping[str, Any], with_sample: bool) -> dict[str, Any]:
    """Returns the schema around that of an item, and of its sample where there is to be one."""
    properties: dict[str, Any] = {"item": dict(item_schema)}
    if with_sample:
        properties["sample"] = dict(SAMPLE_SCHEMA)
    return {"type": "object", "properties": properties, "required": list(properties)}


def _check_schema(schema: Mapping[str, Any]) -> None:
    fault = item_schemas.fault_of(schema)
    if fault is not None:
        at = f"{CONFIG}.item_schema"
        raise BadRequest(f"Invalid value for '{at}': {fault}.", param=at, code="invalid_value")
