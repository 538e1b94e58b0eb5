"""Table of erasures: what went of the stored, when and why. It holds nothing of what went."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any, Literal

from sqlalchemy import CheckConstraint, ForeignKey, Index, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base

Cause = Literal["request", "retention", "project"]
CAUSES = ("request", "retention", "project")


class Erasure(Base):
    """One erasure, or all of a day that a project's retention brought. It outlives its project."""

    __tablename__ = "erasures"
    __table_args__ = (
        Index("ix_erasures_project_created", "project_id", "created_at", "id"),
        Index("ix_erasures_organization_created", "organization_id", "created_at", "id"),
        UniqueConstraint("project_id", "day"),
        CheckConstraint(f"cause IN {CAUSES}", name="cause"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """erase_..."""
    organization_id: Mapped[str] = mapped_column(ForeignKey("organizations.id"))
    project_id: Mapped[str]
    """No foreign key: the record stays when the project is erased."""
    cause: Mapped[str]
    day: Mapped[date | None]
    """Of what retention brings; None for what somebody asked for."""
    requested_by: Mapped[str | None]
    """The API key that asked, or `operator`."""
    filter: Mapped[dict[str, Any] | None]
    """What was to go. Of metadata the names alone: values may name a person."""
    counts: Mapped[dict[str, Any]]
    """How many rows went, by what they were."""
    datasets: Mapped[list[Any]]
    """Data sets that were made of what went, and what was trained on them."""
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
