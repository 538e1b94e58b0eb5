"""Tables of job events and per-step metrics."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class JobEvent(Base):
    """One line of a job's log. `seq` counts from 1 per job, without gaps, in commit order."""

    __tablename__ = "job_events"
    __table_args__ = (UniqueConstraint("job_id", "key", name="uq_job_events_key"),)

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    """ftevent-..."""
    key: Mapped[str]
    """Names what happened, such as step-40 or ckpt-40: it is told twice after a resume and stored once."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    level: Mapped[str]
    type: Mapped[str]
    message: Mapped[str]
    data: Mapped[dict[str, Any]]
    attempt: Mapped[int]


class JobMetrics(Base):
    """The numbers of one step (docs/metrics.md); a repeated step overwrites its row."""

    __tablename__ = "job_metrics"

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    step: Mapped[int] = mapped_column(primary_key=True)
    epoch: Mapped[int]
    attempt: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    values: Mapped[dict[str, Any]]
