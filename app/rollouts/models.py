"""Table of per-epoch grades: one row for each sampled completion."""

from __future__ import annotations

from typing import Any

from sqlalchemy import ForeignKey, Index
from sqlalchemy.orm import Mapped, mapped_column

from app.db import Base


class Rollout(Base):
    """One completion and its grade. A step repeated after a resume overwrites its rows.

    The key leads with the job, the split and the step, so that one page of one job is one index
    range however many grades there are.
    """

    __tablename__ = "rollouts"
    __table_args__ = (
        Index("ix_rollouts_row", "job_id", "split", "row", "step"),
        Index("ix_rollouts_epoch", "job_id", "split", "epoch", "step", "row", "sample"),
    )

    job_id: Mapped[str] = mapped_column(ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True)
    split: Mapped[str] = mapped_column(primary_key=True)
    """train, valid, fresh (training rows, to judge a checkpoint), greedy, or control (permuted grades)"""
    step: Mapped[int] = mapped_column(primary_key=True)
    row: Mapped[int] = mapped_column(primary_key=True)
    """0-based row of the data file."""
    sample: Mapped[int] = mapped_column(primary_key=True)
    """0-based index within the group."""
    epoch: Mapped[int]
    attempt: Mapped[int]
    text: Mapped[str]
    tokens: Mapped[int]
    finish_reason: Mapped[str]
    reward: Mapped[float | None]
    """None if and only if `failure` is set."""
    failure: Mapped[str | None]
    """A graders.FailureKind."""
    failure_message: Mapped[str | None]
    parts: Mapped[dict[str, Any]]
    reason: Mapped[str]
    message: Mapped[dict[str, Any] | None]
    """Answer, thoughts and calls in the chat form; None of an episode, and of a text that is all answer."""
    episode: Mapped[dict[str, Any] | None]
    """{"trace_id", "messages"} of a completion of several turns, and the "reward" of a named environment;
    None of one without tools."""
    sampled_by: Mapped[str | None]
    """Names the weights that wrote it, where a vLLM server sampled; None for the sampler in the training."""
    part_failures: Mapped[dict[str, Any] | None]
    """{"kind", "message"} by the name of a part that failed, such as a sub-grader; None where none did."""
