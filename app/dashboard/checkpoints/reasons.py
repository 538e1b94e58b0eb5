"""Says in sentences which checkpoint a job has delivered, and why that one."""

from __future__ import annotations

from collections.abc import Sequence

from app.cards.points import Point
from app.jobs.models import ACTIVE, Job

BETTER = (
    "Of the checkpoints that are better than the base beyond doubt, and within one standard error of the best"
    " of them, it is the one nearest to the base: the same reward for less drift."
)
BASE = {
    "not_distinguishable": (
        "No checkpoint was better than the base beyond doubt, so the job has delivered the base. A checkpoint"
        " that you want all the same can be downloaded and asked by its own name."
    ),
    "worse": (
        "The last checkpoint was worse than the base beyond doubt, so the job has delivered the base. Its"
        " checkpoints can be downloaded and asked by their own names."
    ),
}
TUNED = "A job of this method delivers its last weights."


def why_delivered(job: Job, points: Sequence[Point]) -> str:
    """Returns the sentences; of a job that has delivered nothing they say so."""
    delivered = next((point for point in points if point.is_delivered), None)
    if delivered is None:
        if job.status in ACTIVE:
            return "The job is not over: it decides at its end which checkpoint it delivers."
        return "The job has delivered nothing; the checkpoints whose files are kept can be used all the same."
    kind = str((job.verdict or {}).get("kind", ""))
    if kind in BASE and delivered.checkpoint.step == 0:
        return BASE[kind]
    step = f"Step {delivered.checkpoint.step} is delivered."
    if job.method["type"] != "reinforcement":
        return f"{step} {TUNED}"
    return f"{step} {BETTER}" if kind.startswith("better") else step
