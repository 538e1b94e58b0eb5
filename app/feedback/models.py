"""Table of feedback."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, Index, func
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class Feedback(Base):
    """What somebody says of one choice of a stored chat completion. It goes with the completion."""

    __tablename__ = "feedback"
    __table_args__ = (
        Index("ix_feedback_project_created", "project_id", "created_at", "id"),
        CheckConstraint(
            "reward IS NOT NULL OR correction IS NOT NULL OR reference IS NOT NULL", name="says_something"
        ),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """fdbk_..."""
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    completion_id: Mapped[str] = mapped_column(
        ForeignKey("chat_completions.id", ondelete="CASCADE"), index=True
    )
    choice: Mapped[int]
    """Which of the completion's choices, by its index."""
    reward: Mapped[float | None]
    """From 0 to 1: how good the choice was."""
    correction: Mapped[str | None]
    """What the model should have written."""
    reference: Mapped[Any | None] = mapped_column(JSONB(none_as_null=True))
    """The true answer, which a grader compares with: any JSON value."""
    comment: Mapped[str | None]
    meta: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    key_id: Mapped[str]
    """The API key that gave it."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
