"""Table of responses that are kept."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, ForeignKey, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base

ACTIVE = ("queued", "in_progress")
"""Statuses of a response in the background that is not over."""
STATUSES = (*ACTIVE, "completed", "incomplete", "failed", "cancelled")


class StoredResponse(Base):
    """A response with the items that its request brought; those before them are its predecessors'."""

    __tablename__ = "responses"
    __table_args__ = (CheckConstraint(f"status IN {STATUSES}", name="status"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    """resp_..."""
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    status: Mapped[str]
    previous_response_id: Mapped[str | None]
    """It may be deleted by now; then what came before it is lost to this one too."""
    input_items: Mapped[list[Any]]
    response: Mapped[dict[str, Any]]
    """As it is told, but for the status."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)
    lease_expires_at: Mapped[datetime | None]
    """Of one in the background: until when the process that works on it has not gone silent."""
