"""Tables of regrades, and of what each completion got."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base

Status = Literal["queued", "running", "succeeded", "failed", "cancelled"]
ACTIVE = ("queued", "running")
"""Statuses of a regrade that is not over."""
TERMINAL = ("succeeded", "failed", "cancelled")
SourceKind = Literal["rollouts", "stored_completions"]

EXACT = JSON(none_as_null=True)


class Regrade(Base):
    """One regrade. As with jobs the row decides, and `attempt` fences every write of a worker."""

    __tablename__ = "regrades"
    __table_args__ = (
        Index("ix_regrades_project_created", "project_id", "created_at", "id"),
        Index("ix_regrades_job", "job_id", "created_at", "id"),
        Index(
            "ix_regrades_claimable",
            "project_id",
            "created_at",
            "id",
            postgresql_where=text("status IN ('queued', 'running')"),
        ),
        CheckConstraint(f"status IN {ACTIVE + TERMINAL}", name="status"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """regrade_..."""
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    job_id: Mapped[str | None] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    """The job whose rollouts are graded; None where stored completions are."""
    status: Mapped[str] = mapped_column(default="queued")
    source: Mapped[dict[str, Any]]
    """{"type", ...}: which completions, as requested."""
    grader: Mapped[dict[str, Any]] = mapped_column(EXACT)
    """The new grader; headers of endpoints are sealed, as those of a job's."""
    baseline: Mapped[dict[str, Any] | None] = mapped_column(EXACT)
    """Another grader to compare it with; None for the rewards that are stored, if there are any."""
    meta: Mapped[dict[str, Any] | None] = mapped_column("metadata")

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    progress: Mapped[dict[str, Any] | None]
    """{"phase"} while a worker is at it."""
    total: Mapped[int | None]
    """Completions to grade, once they were counted."""
    done: Mapped[int] = mapped_column(server_default=text("0"))
    """Completions that are graded. The newest result has this number."""
    comparison: Mapped[dict[str, Any] | None]
    error: Mapped[dict[str, Any] | None]
    """{"code", "message", "param"} of a failed one."""

    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    progress_at: Mapped[datetime | None]
    """When a worker last wrote a result, or began."""
    fruitless_attempts: Mapped[int] = mapped_column(server_default=text("0"))
    """Attempts in a row that wrote no result."""


class RegradeResult(Base):
    """What one completion got from the new grader, and what it had before."""

    __tablename__ = "regrade_results"
    __table_args__ = (
        UniqueConstraint("regrade_id", "ref"),
        Index("ix_regrade_results_distance", "regrade_id", "distance", "seq"),
    )

    regrade_id: Mapped[str] = mapped_column(ForeignKey("regrades.id", ondelete="CASCADE"), primary_key=True)
    seq: Mapped[int] = mapped_column(primary_key=True)
    """1, 2, ... in the order of grading."""
    ref: Mapped[str]
    """The completion: a rollout's id within its job, or a stored completion's id and the number of its
    choice."""
    data_row: Mapped[str]
    """What completions of one prompt share: the file and its row, or the stored completion."""
    text: Mapped[str | None]
    """What was graded, of a stored completion, which may be gone by now; None of a rollout."""
    reward_before: Mapped[float | None]
    failure_before: Mapped[str | None]
    reward: Mapped[float | None]
    failure: Mapped[str | None]
    """A graders.FailureKind; a reward is None if and only if its failure is set, or there was none before."""
    failure_message: Mapped[str | None]
    parts: Mapped[dict[str, Any]]
    reason: Mapped[str]
    difference: Mapped[float | None]
    """The new reward minus the one before, each as a share of its grader's range; None until all are graded,
    and where one of them is missing."""
    distance: Mapped[float | None]
    """How large the difference is."""
