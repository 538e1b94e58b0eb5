"""Table of checkpoint permissions."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import ForeignKey, UniqueConstraint, func
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class CheckpointPermission(Base):
    """A project other than its owner's may use a checkpoint as a model, while this row is there."""

    __tablename__ = "checkpoint_permissions"
    __table_args__ = (
        UniqueConstraint("checkpoint_id", "project_id", name="uq_checkpoint_permissions_project"),
    )

    id: Mapped[str] = mapped_column(primary_key=True)
    """cp_..."""
    checkpoint_id: Mapped[str] = mapped_column(ForeignKey("checkpoints.id", ondelete="CASCADE"))
    project_id: Mapped[str] = mapped_column(ForeignKey("projects.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
