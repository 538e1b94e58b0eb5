"""Serves /v1/feedback."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query

from app.feedback import service as feedback
from app.feedback.schemas import FeedbackCreate, FeedbackDeleted, FeedbackList, FeedbackOut
from app.http.transaction import CurrentCaller, Db, KeptRoute
from app.pagination import MAX_CURSOR, Cursor, Limit

router = APIRouter(prefix="/v1/feedback", tags=["flywheel"], route_class=KeptRoute)

OURS = {"x-cherry": True}
FEEDBACK = "/{feedback_id}"


@router.post("", openapi_extra=OURS)
def create_feedback(request: FeedbackCreate, caller: CurrentCaller, db: Db) -> FeedbackOut:
    """Say how good a stored chat completion was, what it should have been, or what the true answer is."""
    request.check()
    return FeedbackOut.of(feedback.create(db, caller, request))


@router.get("", openapi_extra=OURS)
def list_feedback(
    caller: CurrentCaller,
    db: Db,
    completion_id: Annotated[str | None, Query(max_length=MAX_CURSOR)] = None,
    after: Cursor = None,
    limit: Limit = 20,
) -> FeedbackList:
    """Feedback, newest first; of one completion where `completion_id` names it."""
    page = feedback.list_feedback(
        db, caller.project_id, completion_id=completion_id, after=after, limit=limit
    )
    return FeedbackList.of(page)


@router.get(FEEDBACK, openapi_extra=OURS)
def retrieve_feedback(feedback_id: str, caller: CurrentCaller, db: Db) -> FeedbackOut:
    """What was said of a stored completion."""
    return FeedbackOut.of(feedback.get(db, caller.project_id, feedback_id))


@router.delete(FEEDBACK, openapi_extra=OURS)
def delete_feedback(feedback_id: str, caller: CurrentCaller, db: Db) -> FeedbackDeleted:
    """Delete feedback. Files that were made with it stay."""
    feedback.remove(db, caller.project_id, feedback_id)
    return FeedbackDeleted(id=feedback_id)
