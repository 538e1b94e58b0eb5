"""Table of fine-tuning jobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base

Status = Literal["validating_files", "queued", "running", "paused", "succeeded", "failed", "cancelled"]
ACTIVE = ("validating_files", "queued", "running", "paused")
"""Statuses of a job that is not over: what such a job needs stays."""
TERMINAL = ("succeeded", "failed", "cancelled")


class Job(Base):
    """One job. The row decides: messages only say "look again".

    `attempt` is a fencing token: it only grows, and every write of a run checks it.
    """

    __tablename__ = "jobs"
    __table_args__ = (
        Index("ix_jobs_project_created", "project_id", "created_at", "id"),
        Index("ix_jobs_metadata", "metadata", postgresql_using="gin"),
        Index(
            "ix_jobs_claimable",
            "project_id",
            "created_at",
            "id",
            postgresql_where=text("status IN ('validating_files', 'queued', 'running')"),
        ),
        Index("ix_jobs_waits_for_room", "id", postgresql_where=text("waits_for_room IS NOT NULL")),
        CheckConstraint(f"status IN {ACTIVE + TERMINAL}", name="status"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """ftjob-..."""
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    status: Mapped[str] = mapped_column(default="validating_files")
    model: Mapped[str]
    """Resolved base model name."""
    training_file: Mapped[str]
    validation_file: Mapped[str | None]
    eval_id: Mapped[str | None]
    """The eval that the job made, of which each of its validations is a run; it may be deleted by now."""
    canary_file: Mapped[str | None]
    """Texts of the owner's own, on which checkpoints' loss is measured; None for those of the package."""
    suffix: Mapped[str | None]
    seed: Mapped[int]
    meta: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    method: Mapped[dict[str, Any]]
    """As requested, defaults and grader names filled in; "auto" until validation resolves it."""
    integrations: Mapped[list[Any] | None]
    """As requested: where else the run is shown."""
    resources: Mapped[dict[str, Any] | None]
    """{"gpus": N} or {"processes": N} as requested; None for one process on what there is."""
    config: Mapped[dict[str, Any] | None]
    """The resolved TrainConfig or TuneConfig, once validation has read the files."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    error: Mapped[dict[str, Any] | None]
    """{"code", "message", "param"} of a failed job."""
    fine_tuned_model: Mapped[str | None]
    result_files: Mapped[list[Any]] = mapped_column(server_default=text("'[]'"))
    trained_tokens: Mapped[int | None] = mapped_column(BigInteger)
    verdict: Mapped[dict[str, Any] | None]
    """What is said of a reinforcement job's result, once it has one: a verdict of the engine."""
    estimated_finish: Mapped[datetime | None]
    usage_metrics: Mapped[dict[str, Any] | None]
    """What the training has used until its last step, as the API shows it."""

    last_seq: Mapped[int] = mapped_column(server_default=text("0"))
    """Number of the newest event."""
    last_step: Mapped[int] = mapped_column(server_default=text("0"))
    total_steps: Mapped[int | None]

    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    phase: Mapped[str | None]
    """What the training is doing (sampling, grading, ...); `phase_since` feeds the watchdog."""
    phase_since: Mapped[datetime | None]
    fruitless_attempts: Mapped[int] = mapped_column(server_default=text("0"))
    """Attempts in a row that made no new step; reset by progress."""
    state_step: Mapped[int | None]
    """Step of the newest training state in storage, from which a new attempt goes on."""
    cancel_requested_at: Mapped[datetime | None]
    pause_requested_at: Mapped[datetime | None]
    """Set while a running job is asked to pause, and while it is paused."""
    waits_for_room: Mapped[dict[str, Any] | None]
    """`app.disk.Room` of a job that is paused for lack of it, and goes on by itself."""
