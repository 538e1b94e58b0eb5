"""Tables of uploads and their parts. Bytes of a part: storage key `uploads/{upload_id}/parts/{part_id}`."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base

STATUSES = ("pending", "completed", "cancelled", "expired")


class Upload(Base):
    __tablename__ = "uploads"
    __table_args__ = (
        Index("ix_uploads_project_status", "project_id", "status"),
        Index("ix_uploads_clear_at", "clear_at", postgresql_where=text("clear_at IS NOT NULL")),
        CheckConstraint(f"status IN {STATUSES}", name="status"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """upload_..."""
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    filename: Mapped[str]
    purpose: Mapped[str]
    bytes: Mapped[int] = mapped_column(BigInteger)
    """The size as announced; the parts must have as many together."""
    mime_type: Mapped[str]
    expires_after_seconds: Mapped[int | None]
    """The id of the file that it becomes, from that file's creation on."""
    status: Mapped[str] = mapped_column(default="pending")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    expires_at: Mapped[datetime]
    part_ids: Mapped[list[Any] | None]
    """The parts it was completed with, in order."""
    file_id: Mapped[str | None]
    """The file it became; that may be deleted by now."""
    clear_at: Mapped[datetime | None]
    """When the sweep looks for bytes that nobody needs any more; None once it has."""


class UploadPart(Base):
    __tablename__ = "upload_parts"

    id: Mapped[str] = mapped_column(primary_key=True)
    """part_..."""
    upload_id: Mapped[str] = mapped_column(ForeignKey("uploads.id", ondelete="CASCADE"), index=True)
    bytes: Mapped[int] = mapped_column(BigInteger)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
