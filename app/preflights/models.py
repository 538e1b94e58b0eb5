"""Table of preflights."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
ACTIVE = ("queued", "running")
"""Statuses of a preflight that is not over."""
TERMINAL = ("succeeded", "failed", "cancelled")
Stage = Literal["files", "samples"]
STAGES = ("files", "samples")


class Preflight(Base):
    """One preflight. As with jobs the row decides, and `attempt` fences every write of a worker.

    The columns of what was asked have the names that jobs have, so that one check reads both.
    """

    __tablename__ = "preflights"
    __table_args__ = (
        Index("ix_preflights_project_created", "project_id", "created_at", "id"),
        Index(
            "ix_preflights_claimable",
            "project_id",
            "created_at",
            "id",
            postgresql_where=text("status IN ('queued', 'running')"),
        ),
        CheckConstraint(f"status IN {ACTIVE + TERMINAL}", name="status"),
        CheckConstraint(f"stage IN {STAGES}", name="stage"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """ftpre-..."""
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    status: Mapped[str] = mapped_column(default="queued")
    stage: Mapped[str] = mapped_column(default="files")
    """What comes next: `files` at a worker that validates; `samples`, if that costs more than such a worker
    has, at one that trains."""
    model: Mapped[str]
    training_file: Mapped[str]
    validation_file: Mapped[str | None]
    canary_file: Mapped[str | None]
    seed: Mapped[int]
    method: Mapped[dict[str, Any]]
    resources: Mapped[dict[str, Any] | None]
    limits: Mapped[dict[str, Any]]
    """How much is sampled, as requested."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    progress: Mapped[dict[str, Any] | None]
    """{"phase", "done", "total"} while a worker is at it."""
    config: Mapped[dict[str, Any] | None]
    """The resolved TrainConfig, once the files were read: what the job would run with."""
    report: Mapped[dict[str, Any] | None]
    """What was found so far."""
    error: Mapped[dict[str, Any] | None]
    """{"code", "message", "param"} of a failed one."""

    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    fruitless_attempts: Mapped[int] = mapped_column(server_default=text("0"))
    """Attempts in a row that ended early."""
