"""Table of chat completions that were stored at their owner's wish."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class StoredChat(Base):
    """A chat completion with the messages that it answers."""

    __tablename__ = "chat_completions"
    __table_args__ = (Index("ix_chat_completions_project_created", "project_id", "created_at", "id"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    """chatcmpl-..."""
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    model: Mapped[str]
    meta: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    messages: Mapped[list[Any]]
    """Of the request, as they came."""
    completion: Mapped[dict[str, Any]]
    """The response, as it was given."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(index=True)
