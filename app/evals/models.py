"""Tables of evals, of their runs, and of what each row of a run's data came to."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Literal

from sqlalchemy import JSON, CheckConstraint, ForeignKey, Index, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base

Status = Literal["queued", "in_progress", "completed", "failed", "canceled"]
ACTIVE = ("queued", "in_progress")
"""Statuses of a run that is not over."""
TERMINAL = ("completed", "failed", "canceled")
ItemStatus = Literal["pass", "fail", "error"]
WAITING = "waiting"
"""The status of an item that no answer was judged of yet; it is in no list."""
ITEM_STATUSES = (WAITING, "pass", "fail", "error")
NO_RESULTS = {"total": 0, "errored": 0, "failed": 0, "passed": 0}

EXACT = JSON(none_as_null=True)
"""JSON as it came, the order of keys too: a template may render a whole object."""


class Eval(Base):
    """An eval: the form of its data, and its criteria."""

    __tablename__ = "evals"
    __table_args__ = (
        Index("ix_evals_project_created", "project_id", "created_at", "id"),
        Index("ix_evals_project_updated", "project_id", "updated_at", "id"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """eval_..."""
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    name: Mapped[str]
    meta: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    data_source_config: Mapped[dict[str, Any]] = mapped_column(EXACT)
    """As it is told: `type`, the `schema` around item and sample, perhaps `metadata`."""
    testing_criteria: Mapped[list[Any]] = mapped_column(EXACT)
    """Graders, each with an `id`; headers of endpoints are sealed, as those of a job's grader."""
    job_id: Mapped[str | None]
    """The fine-tuning job that made it, which may be gone by now."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now(), onupdate=func.now())


class EvalRun(Base):
    """One run. As with jobs the row decides, and `attempt` fences every write of a worker."""

    __tablename__ = "eval_runs"
    __table_args__ = (
        Index("ix_eval_runs_eval_created", "eval_id", "created_at", "id"),
        Index(
            "ix_eval_runs_claimable",
            "project_id",
            "created_at",
            "id",
            postgresql_where=text("status IN ('queued', 'in_progress')"),
        ),
        UniqueConstraint("eval_id", "job_step"),
        CheckConstraint(f"status IN {ACTIVE + TERMINAL}", name="status"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """evalrun_..."""
    eval_id: Mapped[str] = mapped_column(ForeignKey("evals.id", ondelete="CASCADE"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"))
    status: Mapped[str] = mapped_column(default="queued")
    name: Mapped[str]
    model: Mapped[str] = mapped_column(default="")
    """Who answers, by the name of the model itself; empty where answers are given."""
    meta: Mapped[dict[str, Any] | None] = mapped_column("metadata")
    data_source: Mapped[dict[str, Any]] = mapped_column(EXACT)
    """As requested."""
    job_step: Mapped[int | None]
    """Of a run that is a validation of the eval's fine-tuning job: the step."""

    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    started_at: Mapped[datetime | None]
    finished_at: Mapped[datetime | None]
    error: Mapped[dict[str, Any] | None]
    """{"code", "message"} of a failed one."""
    total: Mapped[int | None]
    """Rows of its data, once they were read: each has an output item from then on."""
    result_counts: Mapped[dict[str, Any]] = mapped_column(default=lambda: dict(NO_RESULTS))
    per_model_usage: Mapped[list[Any]] = mapped_column(default=list)
    per_testing_criteria_results: Mapped[list[Any]] = mapped_column(default=list)
    """These three as they are told."""

    attempt: Mapped[int] = mapped_column(server_default=text("0"))
    lease_owner: Mapped[str | None]
    lease_expires_at: Mapped[datetime | None]
    progress_at: Mapped[datetime | None]
    """When the worker last wrote a result, or began."""
    fruitless_attempts: Mapped[int] = mapped_column(server_default=text("0"))
    """Attempts in a row that wrote no result."""


class EvalOutputItem(Base):
    """What one row of a run's data came to. It is there, waiting, from the moment the row was read."""

    __tablename__ = "eval_output_items"
    __table_args__ = (
        UniqueConstraint("run_id", "seq"),
        Index("ix_eval_output_items_status", "run_id", "status", "seq"),
        CheckConstraint(f"status IN {ITEM_STATUSES}", name="status"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """outputitem_..."""
    run_id: Mapped[str] = mapped_column(ForeignKey("eval_runs.id", ondelete="CASCADE"))
    seq: Mapped[int]
    """1, 2, ... within the run: the order of its lists."""
    datasource_item_id: Mapped[int]
    """0-based place of the row in the data; several answers to one row share it."""
    status: Mapped[str] = mapped_column(default=WAITING)
    datasource_item: Mapped[dict[str, Any]] = mapped_column(EXACT)
    given: Mapped[dict[str, Any] | None] = mapped_column(EXACT)
    """The `sample` that came with the row."""
    results: Mapped[list[Any]] = mapped_column(EXACT, default=list)
    sample: Mapped[dict[str, Any] | None] = mapped_column(EXACT)
    """What was asked and answered, as it is told; None while it waits."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    """When it was judged; while it waits, when it was read."""
