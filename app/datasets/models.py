"""Tables of data sets, and of where their rows came from."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
STATUSES = ("queued", "running", "succeeded", "failed", "cancelled")


class Dataset(Base):
    """One data set. The columns of its work are those of app/jobs/leases.py."""

    __tablename__ = "datasets"
    __table_args__ = (
        Index("ix_datasets_project_created", "project_id", "created_at", "id"),
        Index(
            "ix_datasets_claimable",
            "project_id",
            "created_at",
            "id",
            postgresql_where=text("status IN ('queued', 'running')"),
        ),
        CheckConstraint(f"status IN {STATUSES}", name="status"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """dataset-..."""
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    status: Mapped[str] = mapped_column(default="queued")
    request: Mapped[dict[str, Any]]
    """As it was asked for, defaults filled in."""
    file_id: Mapped[str | None] = mapped_column(index=True)
    """The file that was made; it may be deleted by now."""
    report: Mapped[dict[str, Any] | None]
    """What is in the file, what was left out and why."""
    error: Mapped[dict[str, Any] | None]
    """{"code", "message", "param"} of a failed one."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """What was stored or said later is in no data set of before."""
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    progress: Mapped[dict[str, Any] | None]
    """{"phase", "done", "total"} while a worker is at it."""
    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    fruitless_attempts: Mapped[int] = mapped_column(server_default=text("0"))
    """Attempts in a row that ended early."""


class DatasetSource(Base):
    """Where a part of a row came from. It holds no text, and stays when the completion has gone."""

    __tablename__ = "dataset_sources"

    dataset_id: Mapped[str] = mapped_column(ForeignKey("datasets.id", ondelete="CASCADE"), primary_key=True)
    line: Mapped[int] = mapped_column(primary_key=True)
    """Of the file, from 1."""
    part: Mapped[str] = mapped_column(primary_key=True)
    """`prompt` for the whole row; of dpo, `preferred` or `non_preferred`."""
    completion_id: Mapped[str] = mapped_column(index=True)
    choice: Mapped[int]
    model: Mapped[str]
    """The model that wrote the completion."""
    feedback_ids: Mapped[list[Any]]
    """Of the feedback that decided about the row."""
