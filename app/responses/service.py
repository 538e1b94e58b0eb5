"""Keeps responses, and finds the conversation that a new one goes on. What has expired is gone at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from app.errors import BadRequest, NotFound
from app.responses.items import Item
from app.responses.models import ACTIVE, StoredResponse
from app.storable import storable

MOST_TURNS = 1000
"""Responses that one conversation may have before it. Chosen, not measured."""
WENT_SILENT = {"code": "server_error", "message": "The process that worked on the response has ended."}


def store(
    db: Session,
    project_id: str,
    response: Mapping[str, Any],
    input_items: Sequence[Item],
    *,
    keep: timedelta,
    lease: timedelta | None = None,
) -> None:
    """Keeps a response with the items that its request brought. `lease` is for work in the background."""
    db.add(
        StoredResponse(
            id=response["id"],
            project_id=project_id,
            status=response["status"],
            previous_response_id=response["previous_response_id"],
            input_items=storable(input_items),
            response=storable(response),
            expires_at=func.now() + keep,
            lease_expires_at=None if lease is None else func.now() + lease,
        )
    )
    db.flush()


def get(db: Session, project_id: str, response_id: str) -> StoredResponse:
    """Returns a kept response. Raises `NotFound`."""
    found = _find(db, project_id, response_id)
    if found is None:
        message = f"Response with id '{response_id}' not found."
        raise NotFound(message, param="response_id", code="response_not_found")
    return found


def told(row: StoredResponse) -> dict[str, Any]:
    """Returns a response as it is told."""
    return {**row.response, "status": row.status}


def context(db: Session, project_id: str, previous_response_id: str | None) -> list[Item]:
    """Returns the items of a conversation up to and with a response. Raises `BadRequest` if one is gone."""
    turns: list[list[Item]] = []
    response_id = previous_response_id
    while response_id is not None:
        row = _find(db, project_id, response_id)
        if row is None or len(turns) >= MOST_TURNS:
            raise BadRequest(
                f"Previous response with id '{response_id}' not found.",
                param="previous_response_id",
                code="previous_response_not_found",
            )
        turns.append([*row.input_items, *row.response["output"]])
        response_id = row.previous_response_id
    return [item for turn in reversed(turns) for item in turn]


def items_of(db: Session, row: StoredResponse) -> list[Item]:
    """Returns all items that a response was given, as far as its predecessors are still kept."""
    turns: list[list[Item]] = [row.input_items]
    response_id = row.previous_response_id
    while response_id is not None and (before := _find(db, row.project_id, response_id)) is not None:
        turns.append([*before.input_items, *before.response["output"]])
        response_id = before.previous_response_id
    return [item for turn in reversed(turns) for item in turn]


def remove(db: Session, project_id: str, response_id: str) -> None:
    """Deletes a response. Raises `NotFound`."""
    db.delete(get(db, project_id, response_id))
    db.flush()


def cancel(db: Session, project_id: str, response_id: str) -> StoredResponse:
    """Cancels a response in the background; one that is over stays as it is.

    Raises `NotFound`, or `BadRequest` for one that its client waited for.
    """
    row = get(db, project_id, response_id)
    if not row.response["background"]:
        raise BadRequest(
            "Only a response in the background can be cancelled; for others close the connection.",
            param="response_id",
            code="invalid_value",
        )
    db.execute(
        update(StoredResponse)
        .where(StoredResponse.id == row.id, StoredResponse.status.in_(ACTIVE))
        .values(status="cancelled", lease_expires_at=None)
    )
    db.refresh(row)
    return row


def renew(db: Session, response_id: str, lease: timedelta) -> bool:
    """Says that a response in the background is worked on. Returns False if it is not wanted any more."""
    return _held(db, response_id, status="in_progress", lease_expires_at=func.now() + lease)


def finish(db: Session, response: Mapping[str, Any]) -> bool:
    """Keeps what became of a response in the background. Returns False if it is not wanted any more."""
    values = {"status": response["status"], "response": storable(response), "lease_expires_at": None}
    return _held(db, response["id"], **values)


def fail_silent(db: Session, limit: int) -> int:
    """Ends some responses in the background whose process went silent. Returns how many."""
    over = (StoredResponse.status.in_(ACTIVE), StoredResponse.lease_expires_at < func.now())
    rows = db.scalars(
        select(StoredResponse).where(*over).limit(limit).with_for_update(skip_locked=True)
    ).all()
    for row in rows:
        row.status, row.lease_expires_at = "failed", None
        row.response = {**row.response, "status": "failed", "error": WENT_SILENT}
    db.flush()
    return len(rows)


def _held(db: Session, response_id: str, **values: Any) -> bool:
    mine = (StoredResponse.id == response_id, StoredResponse.status.in_(ACTIVE))
    held = update(StoredResponse).where(*mine).values(**values).returning(StoredResponse.id)
    return db.scalars(held).first() is not None


def _find(db: Session, project_id: str, response_id: str) -> StoredResponse | None:
    own = (StoredResponse.project_id == project_id, StoredResponse.expires_at > func.now())
    return db.scalars(select(StoredResponse).where(StoredResponse.id == response_id, *own)).first()
