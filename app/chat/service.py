"""Keeps chat completions for those who ask for it. To readers what has expired is gone at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import Any, Literal

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from app.chat.models import StoredChat
from app.errors import NotFound
from app.pagination import Owned, Page, page_by_age
from app.storable import storable

Order = Literal["asc", "desc"]


def store(
    db: Session,
    project_id: str,
    completion: Mapping[str, Any],
    messages: Sequence[Mapping[str, Any]],
    *,
    metadata: Mapping[str, str] | None,
    keep: timedelta,
) -> None:
    """Keeps a completion with the messages that it answers."""
    db.add(
        StoredChat(
            id=completion["id"],
            project_id=project_id,
            model=completion["model"],
            meta=dict(metadata or {}),
            messages=storable(messages),
            completion=storable(completion),
            expires_at=func.now() + keep,
        )
    )
    db.flush()


def get(db: Session, project_id: str, completion_id: str, *, is_kept_from_going: bool = False) -> StoredChat:
    """Returns a stored completion. Raises `NotFound`.

    With `is_kept_from_going` nobody deletes it until this transaction ends.
    """
    query = _kept(project_id).where(StoredChat.id == completion_id)
    if is_kept_from_going:
        query = query.with_for_update(read=True, key_share=True)
    found = db.scalars(query).first()
    if found is None:
        raise NotFound(
            f"No such chat completion: {completion_id}. Only those with 'store: true' are kept, for a time.",
            param="completion_id",
            code="chat_completion_not_found",
        )
    return found


def list_stored(
    db: Session,
    project_id: str,
    *,
    model: str | None,
    metadata: Mapping[str, str] | None,
    after: str | None,
    limit: int,
    order: Order,
) -> Page[StoredChat]:
    """Returns stored completions by age that carry all these pairs."""
    query = _kept(project_id)
    if model is not None:
        query = query.where(StoredChat.model == model)
    if metadata:
        query = query.where(StoredChat.meta.contains(dict(metadata)))
    of = Owned(StoredChat.project_id, project_id)
    return page_by_age(db, query, of, after=after, limit=limit, newest_first=order == "desc")


def change(
    db: Session, project_id: str, completion_id: str, metadata: Mapping[str, str] | None
) -> StoredChat:
    """Replaces the metadata of a stored completion. Raises `NotFound`."""
    found = get(db, project_id, completion_id)
    found.meta = dict(metadata or {})
    db.flush()
    return found


def remove(db: Session, project_id: str, completion_id: str) -> None:
    """Deletes a stored completion. Raises `NotFound`."""
    db.delete(get(db, project_id, completion_id))
    db.flush()


def _kept(project_id: str) -> Select[StoredChat]:
    return select(StoredChat).where(StoredChat.project_id == project_id, StoredChat.expires_at > func.now())
