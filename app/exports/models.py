"""Table of exports: forms of a checkpoint that a worker makes."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base

Status = Literal["queued", "running", "ready", "failed"]
STATUSES = ("queued", "running", "ready", "failed")
ACTIVE = ("queued", "running")
"""Statuses of an export that a worker has to do with."""


class Export(Base):
    """One form of one checkpoint. As with jobs the row decides, and `attempt` fences a worker's writes."""

    __tablename__ = "exports"
    __table_args__ = (
        UniqueConstraint("checkpoint_id", "format", name="uq_exports_format"),
        Index(
            "ix_exports_claimable",
            "project_id",
            "created_at",
            "id",
            postgresql_where=text("status IN ('queued', 'running')"),
        ),
        CheckConstraint(f"status IN {STATUSES}", name="status"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """Internal: ckptexp_..."""
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id", ondelete="CASCADE"))
    format: Mapped[str]
    status: Mapped[str] = mapped_column(default="queued")
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When it was asked for; anew where it is made once more."""
    asked_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When somebody has wanted it last."""
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    progress: Mapped[dict[str, Any] | None]
    """{"phase", "share"} while a worker is at it."""
    error: Mapped[dict[str, Any] | None]
    """{"code", "message"} of a failed one."""
    storage_key: Mapped[str | None]
    """The prefix of its files, once it is ready."""
    manifest: Mapped[dict[str, Any] | None]
    """{"files": {path: {"bytes", "sha256"}}}, once it is ready."""

    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    fruitless_attempts: Mapped[int] = mapped_column(server_default=text("0"))
    """Attempts in a row that ended early."""
