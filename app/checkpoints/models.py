"""Table of checkpoints."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class Checkpoint(Base):
    """A saved point of a run. KL is always measured, also when it is not penalised."""

    __tablename__ = "checkpoints"
    __table_args__ = (UniqueConstraint("job_id", "step", name="uq_checkpoints_step"),)

    id: Mapped[str] = mapped_column(primary_key=True)
    """ftckpt_..."""
    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"))
    step: Mapped[int]
    epoch: Mapped[int]
    attempt: Mapped[int]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    model_name: Mapped[str] = mapped_column(unique=True)
    """ft:base:org:suffix:AbCd1234:ckpt-step-10"""
    is_snapshot: Mapped[bool] = mapped_column(server_default=text("false"))
    """It was made because the job was paused, between two validations, and is kept beside the best few."""
    storage_key: Mapped[str | None]
    """The prefix of its files; None once it was dropped from the best few."""
    manifest: Mapped[dict[str, Any]]
    """What the download holds: {"files": {path: {"bytes", "sha256"}}, ...}."""
    kl: Mapped[float]
    """Mean exact KL(policy || base), nats per token, on the fixed probe set."""
    kl_stderr: Mapped[float | None]
    """None where a single prompt was probed."""
    valid_reward: Mapped[float | None]
    valid_reward_stderr: Mapped[float | None]
    """None of fewer than four rows, as is the next."""
    advantage_over_base: Mapped[float | None]
    advantage_stderr: Mapped[float | None]
    trust: Mapped[dict[str, Any] | None]
    """What else was measured: adjusted p and bounds of the gain, by which rows, greedy reward, ..."""
