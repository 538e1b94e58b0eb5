"""Feedback on the wire."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, JsonValue

from app.errors import BadRequest
from app.feedback.models import Feedback
from app.inference.parameters import MAX_CHOICES
from app.pagination import MAX_CURSOR, Listed, Page
from app.wire import Metadata, Wire

MAX_TEXT = 262_144
"""Characters of a correction. Chosen, not measured: a row of a data set has at most 4 MiB."""
MAX_COMMENT = 8192


class FeedbackCreate(Wire):
    """What is said of one choice of a stored completion: at least one of the three."""

    completion_id: str = Field(min_length=1, max_length=MAX_CURSOR)
    choice: int = Field(default=0, ge=0, lt=MAX_CHOICES, description="Index of the choice that is meant.")
    reward: float | None = Field(default=None, ge=0, le=1, description="How good the choice was.")
    correction: Annotated[str, Field(min_length=1, max_length=MAX_TEXT)] | None = Field(
        default=None, description="What the model should have written."
    )
    reference: JsonValue = Field(
        default=None, description="The true answer, which a grader compares with: any JSON value."
    )
    comment: str | None = Field(default=None, max_length=MAX_COMMENT)
    metadata: Metadata | None = None

    def check(self) -> None:
        """Raises `BadRequest` for feedback that says nothing."""
        if self.correction is not None and not self.correction.strip():
            message = "Invalid value for 'correction': it is blank."
            raise BadRequest(message, param="correction", code="invalid_value")
        if self.reward is None and self.correction is None and self.reference is None:
            raise BadRequest(
                "Feedback needs at least one of 'reward', 'correction' and 'reference'.",
                param="reward",
                code="missing_required_parameter",
            )


class FeedbackOut(BaseModel):
    """Feedback as it was given."""

    object: Literal["feedback"] = "feedback"
    id: str
    created_at: int
    completion_id: str
    choice: int
    reward: float | None
    correction: str | None
    reference: Any
    comment: str | None
    metadata: dict[str, str]
    key_id: str = Field(description="The API key that gave it.")

    @classmethod
    def of(cls, row: Feedback) -> FeedbackOut:
        return cls(
            id=row.id,
            created_at=int(row.created_at.timestamp()),
            completion_id=row.completion_id,
            choice=row.choice,
            reward=row.reward,
            correction=row.correction,
            reference=row.reference,
            comment=row.comment,
            metadata=row.meta or {},
            key_id=row.key_id,
        )


class FeedbackList(Listed[FeedbackOut]):
    @classmethod
    def of(cls, page: Page[Feedback]) -> FeedbackList:
        return cls.holding([FeedbackOut.of(row) for row in page.rows], page.has_more)


class FeedbackDeleted(BaseModel):
    object: Literal["feedback.deleted"] = "feedback.deleted"
    id: str
    deleted: bool = True
