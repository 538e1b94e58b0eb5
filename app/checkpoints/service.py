"""Lists the checkpoints of a job that are kept, and packs one for download."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint
from app.errors import NotFound, ServerError
from app.events.models import JobMetrics
from app.exports.archive import Archive, in_memory, stored
from app.files.integrity import StoredFileDamaged, read_manifest
from app.jobs.models import Job
from app.models.models import Model
from app.pagination import Page, fetch_page
from app.storage import MANIFEST, Storage
from methods import forgetting

LEVEL = 0.05
"""The adjusted p up to which a checkpoint counts as better than the base: a convention, as in the engine."""


class CheckpointDamaged(ServerError):
    """A stored file is not what the run has written. To ask again cannot help."""

    code = "checkpoint_damaged"

    def __init__(self, checkpoint_id: str, why: str) -> None:
        message = (
            f"The checkpoint {checkpoint_id} is damaged and was not sent: {why}. Use another checkpoint."
        )
        super().__init__(message, headers={"x-should-retry": "false"})


def list_kept(
    db: Session, job_id: str, *, delivered: str | None, after: str | None, limit: int
) -> Page[Checkpoint]:
    """Returns the checkpoints whose files are still there, highest step first; `after` may be one dropped
    since.

    The untouched base (step 0) is among them only if it is what the job delivered.
    """
    query = select(Checkpoint).where(Checkpoint.job_id == job_id, Checkpoint.storage_key.is_not(None))
    query = query.where(or_(Checkpoint.step > 0, Checkpoint.id == delivered))
    if after:
        seen = select(Checkpoint.step).where(Checkpoint.job_id == job_id, Checkpoint.id == after)
        if (step := db.scalars(seen).first()) is not None:
            query = query.where(Checkpoint.step < step)
    return fetch_page(db, query.order_by(Checkpoint.step.desc()), limit)


def metrics_of(db: Session, checkpoints: list[Checkpoint]) -> dict[str, Mapping[str, Any]]:
    """Returns the numbers of each checkpoint's step, by checkpoint id."""
    if not checkpoints:
        return {}
    steps = [checkpoint.step for checkpoint in checkpoints]
    query = select(JobMetrics).where(JobMetrics.job_id == checkpoints[0].job_id, JobMetrics.step.in_(steps))
    values = {row.step: row.values for row in db.scalars(query)}
    return {checkpoint.id: values.get(checkpoint.step, {}) for checkpoint in checkpoints}


def delivered(db: Session, job: Job) -> str | None:
    """Returns the id of the checkpoint that the job's tuned model is, or None before success."""
    if job.fine_tuned_model is None:
        return None
    of_job = (Checkpoint.job_id == job.id, Model.job_id == job.id, Model.name == job.fine_tuned_model)
    query = select(Checkpoint.id).join(Model, Model.storage_key == Checkpoint.storage_key)
    return db.scalars(query.where(*of_job)).first()


def get_kept(db: Session, job_id: str, checkpoint_id: str) -> Checkpoint:
    """Returns a checkpoint that can be downloaded. Raises `NotFound`, also for one that was dropped."""
    own = (Checkpoint.job_id == job_id, Checkpoint.id == checkpoint_id)
    checkpoint = db.scalars(select(Checkpoint).where(*own, Checkpoint.storage_key.is_not(None))).first()
    if checkpoint is None:
        raise _not_found(checkpoint_id)
    return checkpoint


def find_kept(db: Session, project_id: str, name: str) -> tuple[Job, Checkpoint]:
    """Returns a checkpoint of a project that can be downloaded, and its job, by its id, its name, or the name
    of the tuned model that it is. Raises `NotFound`.
    """
    tuned = select(Model.storage_key).where(Model.name == name, Model.project_id == project_id)
    is_meant = or_(Checkpoint.id == name, Checkpoint.model_name == name, Checkpoint.storage_key.in_(tuned))
    query = select(Job, Checkpoint).join(Checkpoint, Checkpoint.job_id == Job.id)
    mine = (Job.project_id == project_id, Checkpoint.storage_key.is_not(None))
    found = db.execute(query.where(is_meant, *mine)).first()
    if found is None:
        raise NotFound(
            f"No such checkpoint, or it is not kept any more: {name}", param="fine_tuned_model_checkpoint"
        )
    job, checkpoint = found
    return job, checkpoint


def whole(checkpoint: Checkpoint, storage: Storage, beside: Mapping[str, bytes] | None = None) -> Archive:
    """Returns a tar of the checkpoint's files, with their SHA-256 sums in manifest.json first, and of small
    files beside them.

    Raises `StoredFileDamaged` for files that are seen to be missing, or `FileNotFoundError` if none is there.
    """
    prefix = f"{checkpoint.storage_key}/"
    files: Mapping[str, Any] = checkpoint.manifest["files"]
    names = [key.removeprefix(prefix) for key in storage.list_keys(str(checkpoint.storage_key))]
    if not names:
        raise FileNotFoundError(f"Storage holds nothing below {prefix}.")
    if missing := sorted(files.keys() - set(names)):
        raise StoredFileDamaged(f"{missing[0]} is missing")
    first = in_memory(MANIFEST, _manifest(checkpoint, storage, is_stored=MANIFEST in names))
    members = [
        stored(storage, f"{prefix}{name}", name, files.get(name))
        for name in sorted(names)
        if name != MANIFEST
    ]
    last = [in_memory(name, data) for name, data in (beside or {}).items()]
    filename = f"{checkpoint.job_id}-step-{checkpoint.step}.tar"
    return Archive(filename, [first, *members, *last], int(checkpoint.created_at.timestamp()))


def _manifest(checkpoint: Checkpoint, storage: Storage, *, is_stored: bool) -> bytes:
    if not is_stored:
        return json.dumps(checkpoint.manifest, indent=2).encode()
    if read_manifest(storage, str(checkpoint.storage_key)) != checkpoint.manifest:
        raise StoredFileDamaged(f"{MANIFEST} has changed since it was written")
    return storage.read_bytes(f"{checkpoint.storage_key}/{MANIFEST}")


@contextmanager
def faults_told(checkpoint_id: str) -> Iterator[None]:
    """Puts stored files that are damaged or gone into a client's words.

    Raises `CheckpointDamaged` or `NotFound`.
    """
    try:
        yield
    except StoredFileDamaged as damage:
        raise CheckpointDamaged(checkpoint_id, str(damage)) from None
    except FileNotFoundError:
        raise _not_found(checkpoint_id) from None


def _not_found(checkpoint_id: str) -> NotFound:
    return NotFound(f"No such checkpoint, or it is not kept any more: {checkpoint_id}", param="checkpoint_id")


def best_checkpoint(db: Session, job: Job) -> Checkpoint | None:
    """Returns the checkpoint to deliver when a job stops early, or None if training gained nothing.

    Of a reinforcement job it is the best whose files are still there, which was better than the base beyond
    doubt when it was made, and, where the guard acts, did not forget too much; of other jobs the newest.
    """
    trained = (Checkpoint.job_id == job.id, Checkpoint.step > 0, Checkpoint.storage_key.is_not(None))
    found = select(Checkpoint).where(*trained)
    if job.method["type"] == "reinforcement":
        found = found.where(Checkpoint.trust["p"].as_float() <= LEVEL, ~Checkpoint.is_snapshot)
        config = job.config or {}
        if config.get("guard") == "act":
            rise, error = (
                func.coalesce(Checkpoint.trust[name].as_float(), 0.0)
                for name in (forgetting.RISE, forgetting.ERROR)
            )
            found = found.where(rise + forgetting.BOUND_ERRORS * error <= config["guard_canary"])
        found = found.order_by(Checkpoint.advantage_over_base.desc())
    return db.scalars(found.order_by(Checkpoint.step.desc()).limit(1)).first()
