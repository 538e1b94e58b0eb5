"""Attaches feedback to stored chat completions, reads it and deletes it."""

from __future__ import annotations

from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from app.auth import Caller
from app.chat import service as chats
from app.chat.models import StoredChat
from app.errors import BadRequest, NotFound
from app.feedback.models import Feedback
from app.feedback.schemas import FeedbackCreate
from app.ids import random_id
from app.pagination import Owned, Page, page_by_age


def create(db: Session, caller: Caller, request: FeedbackCreate) -> Feedback:
    """Attaches feedback to a choice of a stored completion.

    Raises `NotFound` without the completion, `BadRequest` without the choice.
    """
    completion = chats.get(db, caller.project_id, request.completion_id, is_kept_from_going=True)
    choices = len(completion.completion["choices"])
    if request.choice >= choices:
        message = f"Chat completion {completion.id} has no choice {request.choice}: it has {choices}."
        raise BadRequest(message, param="choice", code="invalid_value")
    row = Feedback(
        id=random_id("fdbk_"),
        project_id=caller.project_id,
        completion_id=completion.id,
        choice=request.choice,
        reward=request.reward,
        correction=request.correction,
        reference=request.reference,
        comment=request.comment,
        meta=request.metadata or {},
        key_id=caller.key_id,
    )
    db.add(row)
    db.flush()
    return row


def get(db: Session, project_id: str, feedback_id: str) -> Feedback:
    """Returns feedback on a completion that is still kept. Raises `NotFound`."""
    found = db.scalars(_kept(project_id).where(Feedback.id == feedback_id)).first()
    if found is None:
        raise NotFound(f"No such feedback: {feedback_id}", param="feedback_id")
    return found


def list_feedback(
    db: Session, project_id: str, *, completion_id: str | None, after: str | None, limit: int
) -> Page[Feedback]:
    """Returns feedback, newest first."""
    query = _kept(project_id)
    if completion_id is not None:
        query = query.where(Feedback.completion_id == completion_id)
    of = Owned(Feedback.project_id, project_id)
    return page_by_age(db, query, of, after=after, limit=limit, newest_first=True)


def remove(db: Session, project_id: str, feedback_id: str) -> None:
    """Deletes feedback. Raises `NotFound`."""
    db.delete(get(db, project_id, feedback_id))
    db.flush()


def _kept(project_id: str) -> Select[Feedback]:
    """Returns the query of feedback whose completion's time is not over."""
    query = select(Feedback).join(StoredChat, StoredChat.id == Feedback.completion_id)
    return query.where(Feedback.project_id == project_id, StoredChat.expires_at > func.now())
