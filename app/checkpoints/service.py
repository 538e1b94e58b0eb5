"""Lists the checkpoints of a job that are kept, and packs one for download."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from sqlalchemy import func, or_, select
from sqlalchemy.orm import Session

from app.checkpoints.models import Checkpoint
from app.errors import NotFound, ServerError
from app.events.models import JobMetrics
from app.files.integrity import StoredFileDamaged, check_folder, read_manifest
from app.jobs.models import Job
from app.models.models import Model
from app.pagination import Page, fetch_page
from app.storage import MANIFEST, Storage
from methods import forgetting

BLOCK = tarfile.BLOCKSIZE
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


@dataclass(frozen=True)
class Download:
    """A checkpoint as a tar archive: its exact length, and its bytes."""

    filename: str
    size: int
    chunks: Iterator[bytes]


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


def open_download(
    checkpoint: Checkpoint, storage: Storage, beside: Mapping[str, bytes] | None = None
) -> Download:
    """Makes a tar of the checkpoint's files, with their SHA-256 sums in manifest.json first, and of small
    files beside them.

    It is streamed: nothing is built on disk. All files are read once before, to be checked. Raises
    `CheckpointDamaged`, or `NotFound` if the files went in the meantime; if they go while they are read, the
    stream breaks off short of `size`.
    """
    assert checkpoint.storage_key is not None
    prefix = f"{checkpoint.storage_key}/"
    manifest = f"{prefix}{MANIFEST}"
    keys = sorted(storage.list_keys(checkpoint.storage_key), key=lambda key: (key != manifest, key))
    modified = int(checkpoint.created_at.timestamp())
    try:
        members = [(key, _header(key.removeprefix(prefix), storage.size(key), modified)) for key in keys]
    except FileNotFoundError:
        members = []
    if not members:
        raise _not_found(checkpoint.id)
    _check(checkpoint, storage, has_manifest=keys[0] == manifest)
    first = b""
    if keys[0] != manifest:
        first = _member(MANIFEST, json.dumps(checkpoint.manifest, indent=2).encode(), modified)
    last = b"".join(_member(name, data, modified) for name, data in (beside or {}).items())
    size = len(first) + len(last) + 2 * BLOCK
    size += sum(len(_header_block(info)) + info.size + len(_padding(info.size)) for _, info in members)
    name = f"{checkpoint.job_id}-step-{checkpoint.step}.tar"
    return Download(name, size, _tar(first, members, last, storage))


def _check(checkpoint: Checkpoint, storage: Storage, *, has_manifest: bool) -> None:
    """Compares what is stored with the sums in the checkpoint's row."""
    prefix = str(checkpoint.storage_key)
    try:
        if has_manifest and read_manifest(storage, prefix) != checkpoint.manifest:
            raise StoredFileDamaged(f"{MANIFEST} has changed since it was written")
        check_folder(storage, prefix, checkpoint.manifest)
    except StoredFileDamaged as damage:
        raise CheckpointDamaged(checkpoint.id, str(damage)) from None


def _tar(
    first: bytes, members: list[tuple[str, tarfile.TarInfo]], last: bytes, storage: Storage
) -> Iterator[bytes]:
    yield first
    for key, info in members:
        yield _header_block(info)
        yield from storage.open_stream(key)
        yield _padding(info.size)
    yield last + bytes(2 * BLOCK)


def _member(name: str, data: bytes, modified: int) -> bytes:
    return _header_block(_header(name, len(data), modified)) + data + _padding(len(data))


def _header(name: str, size: int, modified: int) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.size, info.mtime, info.mode = size, modified, 0o644
    return info


def _header_block(info: tarfile.TarInfo) -> bytes:
    return info.tobuf(tarfile.PAX_FORMAT)


def _padding(size: int) -> bytes:
    return bytes(-size % BLOCK)


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
