"""A Recorder that turns what a run tells into rows and stored files, as long as the run's claim holds.

Files, then row, then event; each call is one transaction behind the fence, and a call repeated after a
resume overwrites its rows and adds no second event. `LeaseLost` ends the run: nothing is written then.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from sqlalchemy import Boolean, func, literal_column, select
from sqlalchemy.dialects.postgresql import insert
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint as CheckpointRow
from app.db import unit_of_work
from app.evals import of_jobs
from app.events import rft_metrics, tuning_metrics
from app.events import service as events
from app.events.models import JobMetrics
from app.ids import random_id
from app.jobs import runs, status
from app.jobs.models import Job
from app.jobs.status import Claim
from app.models.naming import tuned_model_name
from app.rollouts.models import Rollout
from app.storable import clean, storable
from app.storage import Storage
from app.webhooks import service as webhooks
from graders.types import Grade, TokenUsage
from methods import metrics as names
from methods.train_config import TrainConfig
from workers.jobs.estimate import RECENT_STEPS, FinishEstimate
from workers.training.base.recorder import Phase
from workers.training.base.types import Action, Checkpoint, Completion, Group, Split
from workers.training.evaluator import validation_temperature
from workers.training.folders import STATES_KEPT

ROWS_AT_ONCE = 1000


class DatabaseRecorder:
    """The Recorder of one attempt."""

    def __init__(self, claim: Claim, storage: Storage) -> None:
        self._claim = claim
        self._storage = storage
        self._remarks: deque[str] = deque()
        self._estimate: FinishEstimate | None = None
        self._is_pause_asked = False

    def is_pause_asked(self) -> bool:
        """Whether the job's owner wanted a pause when the run last told of a phase."""
        return self._is_pause_asked

    def phase(self, phase: Phase) -> None:
        """The run is alive and has entered this phase."""
        with unit_of_work() as db:
            job = runs.set_phase(db, self._claim, phase)
            self._is_pause_asked = job.pause_requested_at is not None

    def metrics(self, step: int, epoch: int, values: Mapping[str, Any]) -> None:
        """Store the numbers of a finished step, its event and the job's progress."""
        now = time.monotonic()
        with unit_of_work() as db:
            job = status.update_held(db, self._claim)
            row = {"epoch": epoch, "attempt": self._claim.attempt, "values": storable(values)}
            upsert = insert(JobMetrics).values(job_id=job.id, step=step, **row)
            upsert = upsert.on_conflict_do_update(index_elements=["job_id", "step"], set_=row)
            is_new = db.scalar(upsert.returning(literal_column("xmax = 0", Boolean)))
            # Steps of arms side by side do not come in the order of their numbers: they are counted.
            made = step if names.ARM_STEP not in values else job.last_step + bool(is_new and step)
            progress: dict[str, Any] = {"usage_metrics": rft_metrics.usage_so_far(values)}
            left = self._seconds_left(db, job, made, values, now)
            if left is not None:
                progress["estimated_finish"] = func.now() + timedelta(seconds=left)
            job = runs.made_step(db, self._claim, made, **progress)
            message, data = _told(job, step, row["values"])
            events.append(db, job.id, f"step-{step}", message, data=data)

    def remark(self, message: str) -> None:
        """Keep a warning, from any thread, until the run tells of rollouts: only that thread writes."""
        self._remarks.append(message)

    def rollouts(self, split: Split, step: int, epoch: int, groups: Sequence[Group]) -> None:
        """Store every graded completion of a step, and tell what was remarked meanwhile."""
        while self._remarks:
            self.note("warn", self._remarks.popleft())
        rows = list(rollout_rows(self._claim, split, step, epoch, groups))
        key = [column.name for column in Rollout.__table__.primary_key]
        upsert = insert(Rollout)
        values = [column.name for column in Rollout.__table__.columns if column.name not in key]
        upsert = upsert.on_conflict_do_update(
            index_elements=key, set_={name: upsert.excluded[name] for name in values}
        )
        with unit_of_work() as db:
            job = status.update_held(db, self._claim)
            for start in range(0, len(rows), ROWS_AT_ONCE):
                db.execute(upsert, rows[start : start + ROWS_AT_ONCE])
            if split == "valid":
                of_jobs.write_validation(db, job, step, list(judged_answers(groups)), eval_sampling(job))

    def checkpoint(self, saved: Checkpoint) -> None:
        """Publish a checkpoint's files, then its row and its event."""
        self._publish(saved, is_snapshot=False)

    def snapshot(self, saved: Checkpoint) -> None:
        """The same for one made by a pause; those of an earlier pause, which ended another attempt, go."""
        self._publish(saved, is_snapshot=True)
        with unit_of_work() as db:
            status.update_held(db, self._claim)
            own = (CheckpointRow.job_id == self._claim.job_id, CheckpointRow.attempt != self._claim.attempt)
            older = select(CheckpointRow.step).where(*own, CheckpointRow.is_snapshot)
            steps = db.scalars(older.where(CheckpointRow.storage_key.is_not(None))).all()
        for step in steps:
            self.dropped(step)

    def _publish(self, saved: Checkpoint, *, is_snapshot: bool) -> None:
        prefix = f"jobs/{self._claim.job_id}/checkpoints/{saved.step}-{self._claim.attempt}"
        self._storage.publish_folder(saved.folder, prefix)
        manifest = json.loads((saved.folder / "manifest.json").read_text())
        with unit_of_work() as db:
            job = status.update_held(db, self._claim)
            row, old_prefix = _checkpoint_row(db, job, saved.step)
            row.epoch = saved.epoch
            row.attempt = self._claim.attempt
            row.is_snapshot = is_snapshot
            row.storage_key = prefix
            row.manifest = manifest
            row.kl = saved.kl
            row.kl_stderr = saved.kl_stderr
            row.valid_reward = saved.valid_reward
            row.valid_reward_stderr = saved.valid_reward_stderr
            row.advantage_over_base = saved.advantage_over_base
            row.advantage_stderr = saved.advantage_stderr
            row.trust = storable(saved.extra)
            db.add(row)
            if saved.step > 0:
                of_jobs.name_model(db, job, saved.step, row.model_name)
                message = f"Checkpoint created at step {saved.step} with Snapshot ID: {row.model_name}"
                if events.append(db, job.id, f"ckpt-{saved.step}", message):
                    webhooks.emit(db, job.project_id, "fine_tuning.checkpoint.created", row.id, job_id=job.id)
        if old_prefix and old_prefix != prefix:
            self._storage.delete_prefix(old_prefix)

    def dropped(self, step: int) -> None:
        """Delete the files of a checkpoint that no saved state needs any more. Its row stays, for curves."""
        with unit_of_work() as db:
            status.update_held(db, self._claim)
            row = db.scalars(_checkpoint_of(self._claim.job_id, step)).one_or_none()
            prefix = row.storage_key if row else None
            if row:
                row.storage_key = None
        if prefix:
            self._storage.delete_prefix(prefix)

    def state(self, step: int, folder: Path) -> None:
        """Publish the training state from which another attempt can go on, then delete older ones, except the
        one before: should this one be damaged, that is still there."""
        prefix = state_prefix(self._claim.job_id)
        self._storage.publish_folder(folder, f"{prefix}/{step}-{self._claim.attempt}")
        with unit_of_work() as db:
            status.update_held(db, self._claim, state_step=step)
        needed = states_to_resume(self._storage, self._claim.job_id, step).values()
        for name in state_names(self._storage, self._claim.job_id):
            if (older := f"{prefix}/{name}") not in needed:
                self._storage.delete_prefix(older)

    def pausing(self, message: str) -> None:
        """Ask for a pause as the job's owner would, and say why; an attempt does so once."""
        with unit_of_work() as db:
            asked = func.coalesce(Job.pause_requested_at, func.now())
            job = status.update_held(db, self._claim, pause_requested_at=asked)
            events.append(db, job.id, f"pauses-{self._claim.attempt}", clean(message), level="warn")

    def action(self, action: Action) -> None:
        """Tell what the run did of its own accord, with its figures; once, however often it is repeated."""
        figures = storable(dict(action.figures))
        told = {"step": action.step, "number": action.number, "is_done": action.is_done}
        data = {"action": action.kind, "reason": action.reason, "figures": figures, **told}
        with unit_of_work() as db:
            job = status.update_held(db, self._claim)
            key = f"action-{action.step}-{action.number}"
            events.append(db, job.id, key, clean(action.message), level="warn", data=data, is_metrics=False)

    def note(self, level: Literal["info", "warn"], message: str) -> None:
        """Tell the person who follows the run; once, however often a step or the end of a rung is repeated.

        Its first sentence says what it is, and of which step; later ones may name seconds, which differ.
        """
        key = f"note-{hashlib.sha256(message.split('. ')[0].encode()).hexdigest()[:32]}"
        with unit_of_work() as db:
            job = status.update_held(db, self._claim)
            events.append(db, job.id, key, clean(message), level=level)

    def _seconds_left(
        self, db: Session, job: Job, step: int, values: Mapping[str, Any], now: float
    ) -> float | None:
        if job.total_steps is None or job.config is None:
            return None
        if self._estimate is None:
            self._estimate = FinishEstimate(job.total_steps, job.config["eval_interval"])
            earlier = select(JobMetrics).where(JobMetrics.job_id == job.id, JobMetrics.step < step)
            newest_first = earlier.order_by(JobMetrics.step.desc()).limit(RECENT_STEPS)
            for row in reversed(db.scalars(newest_first).all()):
                self._estimate.learn(row.step, row.values)
        self._estimate.told(step, values, now)
        return self._estimate.seconds_left(step)


def _told(job: Job, step: int, values: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Message and data of a step's event, by the job's method."""
    total = job.total_steps or step
    if job.method["type"] != "reinforcement":
        return tuning_metrics.tuning_event(step, total, values)
    return rft_metrics.metrics_event(step, total, values, job.method["reinforcement"]["grader"])


def rollout_rows(
    claim: Claim, split: Split, step: int, epoch: int, groups: Sequence[Group]
) -> Iterator[dict[str, Any]]:
    """One row for each graded completion."""
    for group in groups:
        for sample, (completion, grade) in enumerate(zip(group.completions, group.grades, strict=True)):
            yield {
                "job_id": claim.job_id,
                "split": split,
                "step": step,
                "row": group.prompt.file_row,
                "sample": sample,
                "epoch": epoch,
                "attempt": claim.attempt,
                "text": clean(completion.text),
                "tokens": len(completion.tokens),
                "finish_reason": completion.finish_reason,
                "reward": grade.value,
                "failure": grade.failure.kind.value if grade.failure else None,
                "failure_message": clean(grade.failure.message) if grade.failure else None,
                "parts": storable(grade.parts),
                "part_failures": _part_failures(grade),
                "reason": clean(grade.reason),
                "message": _message(completion),
                "episode": _episode(completion),
                "sampled_by": completion.sampled_by or None,
            }


def _part_failures(grade: Grade) -> dict[str, Any] | None:
    """The parts of a grade that failed, as they are kept; None where none did."""
    told = {
        name: {"kind": failure.kind.value, "message": clean(failure.message)}
        for name, failure in grade.part_failures.items()
    }
    return told or None


def _message(completion: Completion) -> dict[str, Any] | None:
    """A completion taken apart, as it is kept; None where its text is all answer, and of an episode."""
    parts = completion.parts
    if completion.turns or parts is None or (parts.is_plain and parts.fault is None):
        return None
    kept: dict[str, Any] = storable(parts.message)
    return kept


def _episode(completion: Completion) -> dict[str, Any] | None:
    """The turns of a completion as they are kept; None where it has one."""
    if not completion.turns:
        return None
    messages = [message for turn in completion.turns for message in turn.told]
    told: dict[str, Any] = {"trace_id": completion.trace_id, "messages": messages}
    if completion.environment_reward is not None:
        told["reward"] = completion.environment_reward
    kept: dict[str, Any] = storable(told)
    return kept


def judged_answers(groups: Sequence[Group]) -> Iterator[of_jobs.Judged]:
    """The answers of a validation, as the eval of the job keeps them."""
    for group in groups:
        for completion, grade in zip(group.completions, group.grades, strict=True):
            tokens = TokenUsage(len(group.prompt.tokens), len(completion.tokens), calls=1)
            told = (clean(completion.answer), completion.finish_reason, tokens, grade)
            yield of_jobs.Judged(group.prompt.file_row, group.prompt.item, *told)


def eval_sampling(job: Job) -> dict[str, Any]:
    """How validation rows are answered, in the words of a chat call."""
    config = TrainConfig(**(job.config or {}))
    return {
        "temperature": validation_temperature(config),
        "top_p": 1.0,
        "seed": job.seed,
        "max_completion_tokens": config.max_completion_tokens,
    }


def state_prefix(job_id: str) -> str:
    return f"jobs/{job_id}/state"


def state_names(storage: Storage, job_id: str) -> list[str]:
    """Names of the complete training states in storage, `STEP-ATTEMPT` each."""
    prefix = state_prefix(job_id)
    keys = (key.removeprefix(f"{prefix}/") for key in storage.list_keys(prefix))
    return [key.partition("/")[0] for key in keys if key.count("/") == 1 and key.endswith("/manifest.json")]


def states_to_resume(storage: Storage, job_id: str, step: int) -> dict[int, str]:
    """Storage prefixes of the newest `STATES_KEPT` states up to that step, the last first, by their steps.

    Of several attempts' states of one step it is the newest attempt's. Later ones are a fenced attempt's.
    """
    numbers = [tuple(map(int, name.split("-"))) for name in state_names(storage, job_id)]
    newest = {at: f"{state_prefix(job_id)}/{at}-{attempt}" for at, attempt in sorted(numbers) if at <= step}
    return {at: newest[at] for at in sorted(newest, reverse=True)[:STATES_KEPT]}


def _checkpoint_of(job_id: str, step: int) -> Any:
    return select(CheckpointRow).where(CheckpointRow.job_id == job_id, CheckpointRow.step == step)


def _checkpoint_row(db: Session, job: Job, step: int) -> tuple[CheckpointRow, str | None]:
    """The row of that step, made if it is new, and where its files were before."""
    row = db.scalars(_checkpoint_of(job.id, step)).one_or_none()
    if row:
        return row, row.storage_key
    name = f"{tuned_model_name(db, job)}:ckpt-step-{step}"
    return CheckpointRow(id=random_id("ftckpt_"), job_id=job.id, step=step, model_name=name), None
