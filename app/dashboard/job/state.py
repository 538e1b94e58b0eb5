"""Says in sentences where a job is: its progress, what it waits for, what it has come to, what to do now."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from sqlalchemy.orm import Session

from app.cards.points import around
from app.checkpoints.models import Checkpoint
from app.dashboard.job import queries
from app.dashboard.times import duration
from app.jobs.models import TERMINAL, Job

PHASES = {
    "loading": "loading the model",
    "sampling": "sampling completions",
    "grading": "grading them",
    "updating": "updating the weights",
    "validating": "validating",
    "saving": "saving a checkpoint",
}
FILE = (
    "Correct the lines that are named, upload the file again and create the job anew. `cherry files check` "
    "finds them before an upload."
)
TO_DO = {
    "invalid_training_file": FILE,
    "invalid_validation_file": FILE,
    "invalid_n_examples": "Add rows to the training file and create the job anew.",
    "flat_reward": "Look at the samples of the first steps. If all are wrong, the task is too hard for this "
    "model as it is asked, or the grader too strict: give it partial scores. If all are right, there is "
    "nothing to learn.",
    "grader_error": "Try the grader on a few rows with `cherry graders run` until it grades each, then "
    "create the job anew.",
    "non_finite": "Create the job anew with a lower learning rate.",
    "out_of_memory": "Create the job anew with a smaller batch, shorter completions or a smaller model.",
    "insufficient_memory": "Lower what the message names, or take a smaller model, and create the job anew.",
    "out_of_context": "Shorten the prompts, or take a model with a longer context.",
    "gpu_missing": "Run `cherry doctor` on the worker: it says why PyTorch does not find the GPU.",
    "model_invalid": "Mend the folder of the model as the message says; add it again: `cherry models add`.",
    "model_error": "Add the model again with `cherry models add`, or create the job with another one.",
    "rollouts_refused": "Set the vLLM server as the message says, or create the job anew without it.",
    "judge_lost": "See that the judge answers, then create the job anew.",
}
OTHERWISE = "The events below say what came before. Create the job anew once the cause is mended."


class State(NamedTuple):
    """What is said of a job above its curves.

    Attributes:
        now: what it does or waits for.
        verdict: what it has come to, or how it stands.
        to_do: what to do about its failure; nothing for others.
    """

    now: str
    verdict: str
    to_do: str


def state(db: Session, job: Job, checkpoints: Sequence[Checkpoint]) -> State:
    """Returns what is said of a job."""
    code = (job.error or {}).get("code", "")
    return State(
        now=_now(db, job),
        verdict=(job.verdict or {}).get("sentence") or standing(checkpoints),
        to_do=TO_DO.get(code, OTHERWISE) if job.status == "failed" else "",
    )


def standing(checkpoints: Sequence[Checkpoint]) -> str:
    """Says how a job stands at its newest checkpoint that was compared with the base; nothing without one."""
    compared = [each for each in checkpoints if each.step and each.advantage_over_base is not None]
    if not compared:
        return ""
    newest = compared[-1]
    gain = newest.advantage_over_base
    trust = newest.trust or {}
    low, high = trust.get("low"), trust.get("high")
    if low is None or high is None:
        low, high = around(gain, newest.advantage_stderr)
    between = "" if low is None or high is None else f" (95 %: {low:+.3f} to {high:+.3f})"
    return f"At step {newest.step} the reward is {gain:+.3f} over the base{between}."


def _now(db: Session, job: Job) -> str:
    if job.status in TERMINAL:
        took = duration(job.finished_at - job.started_at) if job.finished_at and job.started_at else ""
        if not job.last_step:
            return "It ended before its first step."
        return f"{_step(job)}{f', after {took}' if took else ''}."
    if job.status == "validating_files":
        return "Its files are being checked."
    if job.status == "queued":
        before = queries.ahead(db, job)
        place = f"{before} jobs of this project are" if before > 1 else "1 job of this project is"
        return (
            f"It waits for a worker; {place} before it."
            if before
            else "It is the next of this project, and waits for a worker."
        )
    if job.status == "paused":
        return _paused(job)
    return _running(job)


def _paused(job: Job) -> str:
    if job.waits_for_room:
        needed = job.waits_for_room.get("bytes", 0) / 2**30
        folder = job.waits_for_room.get("folder")
        return f"{_step(job)}. It goes on by itself once {needed:.1f} GiB are free in {folder}."
    return f"{_step(job)}. It goes on when it is resumed."


def _running(job: Job) -> str:
    if job.cancel_requested_at is not None:
        return f"{_step(job)}. It is being cancelled, and stops at its next step."
    if job.pause_requested_at is not None:
        return f"{_step(job)}. It pauses at its next step."
    phase = f", {PHASES.get(job.phase, job.phase)}" if job.phase else ""
    left = ""
    if job.estimated_finish is not None:
        seconds = max(0.0, (job.estimated_finish - datetime.now(UTC)).total_seconds())
        left = f"; about {duration(seconds)} left, until {job.estimated_finish.astimezone(UTC):%H:%M:%S} UTC"
    return f"{_step(job)}{phase}{left}."


def _step(job: Job) -> str:
    return f"Step {job.last_step}" + (f" of {job.total_steps}" if job.total_steps else "")
