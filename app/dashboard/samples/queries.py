"""Reads the completions of a job. Each query is one index range of its rows."""

from __future__ import annotations

from typing import Any

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app.rollouts.models import Rollout

ROLLOUTS = 400


def rollouts(db: Session, job_id: str, split: str, step: int | None) -> dict[str, Any]:
    """Returns the graded completions of one step (the newest if none is named), and its neighbours."""
    mine = (Rollout.job_id == job_id, Rollout.split == split)
    if step is None:
        step = db.scalar(select(func.max(Rollout.step)).where(*mine))
    if step is None:
        return {"step": 0, "rollouts": [], "earlier": None, "later": None}
    return {
        "step": step,
        "rollouts": db.scalars(
            select(Rollout)
            .where(*mine, Rollout.step == step)
            .order_by(Rollout.row, Rollout.sample)
            .limit(ROLLOUTS)
        ).all(),
        "earlier": db.scalar(select(func.max(Rollout.step)).where(*mine, Rollout.step < step)),
        "later": db.scalar(select(func.min(Rollout.step)).where(*mine, Rollout.step > step)),
    }
