"""Makes a form of a checkpoint: all that the child process of an export does, and its outcome."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import structlog
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.orm import Session

import app.tables  # noqa: F401  # foreign keys are found by table name
from app.checkpoints.models import Checkpoint
from app.db import limit_statements, unit_of_work
from app.disk import is_full, scratch_folder
from app.exports import runs
from app.exports.forms import ExportRefused
from app.exports.runs import Claim, LeaseLost
from app.exports.service import prefix_of
from app.files.integrity import StoredFileDamaged, check_folder
from app.jobs.models import Job
from app.logs import configure_logging
from app.models import service as models
from app.models.models import Model
from app.settings import get_settings
from app.storable import clean
from app.storage import get_storage
from workers.base_models import local_folder
from workers.jobs.faults import Exit
from workers.jobs.job_data import SCRATCH
from workers.training.folders import sha256

log = structlog.get_logger(__name__)

Tell = Callable[[str, float], None]
"""Tells a phase, and the share of it that is done."""


class Refused(Exception):
    """A checkpoint cannot have that form. The message is for its owner."""


class Wanted(NamedTuple):
    """What an export is made of.

    Attributes:
        checkpoint: where its files are in storage.
        base: the model that its job has started from; None if it is gone.
        prefix: below what all attempts at this export store.
    """

    form: str
    checkpoint: Checkpoint
    base: Model | None
    prefix: str


Write = Callable[[Wanted, Path, Path, Tell], None]
"""Writes a form to the last folder; the one before is for what is needed on the way."""


def make_claimed(export_id: str, attempt: int, project_id: str) -> int:
    """Makes a claimed export and writes its outcome. Returns the exit code of its process.

    Raises `MemoryError` at the limit of its memory.
    """
    settings = get_settings()
    configure_logging(settings.log_level, settings.log_format)
    limit_statements(settings.database_work_limit)
    structlog.contextvars.bind_contextvars(export_id=export_id, attempt=attempt)
    claim = Claim(export_id, attempt, project_id)
    try:
        make(claim)
    except LeaseLost:  # the checkpoint is gone, or another worker has it
        return Exit.LEASE_LOST
    except SQLAlchemyError:
        log.exception("export_broke_off")
        return Exit.DATABASE_AWAY
    return Exit.OUTCOME_WRITTEN


def make(claim: Claim, write: Write | None = None) -> None:
    """Makes a claimed export, stores its files, and lets its row speak of them; or of why there are none.

    `write` is what fills a folder with the files of the form. Raises `LeaseLost`.
    """
    with unit_of_work() as db:
        wanted = _wanted(db, claim)
    with scratch_folder(SCRATCH) as scratch:
        try:
            out = scratch / "out"
            out.mkdir()
            (write or _write)(wanted, scratch, out, _telling(claim))
            _publish(claim, wanted, out)
        except Refused as refused:
            _fail(claim, ExportRefused.code, str(refused))
        except (FileNotFoundError, StoredFileDamaged) as problem:
            _fail(claim, "checkpoint_damaged", str(problem))
        except OSError as problem:
            if not is_full(problem):
                raise
            _fail(
                claim,
                "insufficient_storage",
                "The machine of the worker, or the storage, has no room for it.",
            )


def _wanted(db: Session, claim: Claim) -> Wanted:
    row = runs.held(db, claim)
    checkpoint = db.get_one(Checkpoint, row.checkpoint_id)
    if checkpoint.storage_key is None:
        raise LeaseLost(claim)
    job = db.get_one(Job, checkpoint.job_id)
    base = models.find(db, job.project_id, job.model)
    return Wanted(row.format, checkpoint, base, prefix_of(job.id, row.id))


def _write(wanted: Wanted, scratch: Path, out: Path, tell: Tell) -> None:
    """Writes the GGUF files of a checkpoint to the folder `out`. Raises `Refused`."""
    try:
        from workers.exports.gguf import GgufRefused, write_gguf
    except ModuleNotFoundError as missing:
        raise Refused(
            f"The worker lacks the package {missing.name}. To mend it: pip install 'cherry-rft[gguf]'."
        ) from None

    if wanted.base is None:
        raise Refused("The model that the job has started from is gone.")
    checkpoint = _local(wanted.checkpoint, scratch / "checkpoint")
    try:
        write_gguf(checkpoint, local_folder(wanted.base, scratch / "base"), out, tell)
    except GgufRefused as refused:
        raise Refused(str(refused)) from None


def _local(checkpoint: Checkpoint, copy: Path) -> Path:
    """Returns where the files of a checkpoint lie on this machine, each of them checked."""
    storage, prefix = get_storage(), str(checkpoint.storage_key)
    check_folder(storage, prefix, checkpoint.manifest)
    first = min(checkpoint.manifest["files"])
    if local := storage.local_path(f"{prefix}/{first}"):
        return Path(local.parents[first.count("/")])
    storage.fetch_folder(prefix, copy)
    return copy


def _telling(claim: Claim) -> Tell:
    def tell(phase: str, share: float) -> None:
        with unit_of_work() as db:
            runs.held(db, claim, progress={"phase": phase, "share": round(share, 3)})

    return tell


def _publish(claim: Claim, wanted: Wanted, made: Path) -> None:
    """Stores what was made, and then lets the row speak of it. What earlier attempts have stored goes."""
    storage, key = get_storage(), f"{wanted.prefix}/{claim.attempt}"
    for earlier in range(1, claim.attempt):  # they are over, or fenced off
        storage.delete_prefix(f"{wanted.prefix}/{earlier}")
    paths = sorted(path for path in made.rglob("*") if path.is_file())
    files = {
        path.relative_to(made).as_posix(): {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in paths
    }
    for name in files:
        storage.put_file(f"{key}/{name}", made / name, move=True)
    try:
        with unit_of_work() as db:
            runs.finish_ready(db, claim, key, {"files": files})
    except LeaseLost:
        storage.delete_prefix(key)
        raise


def _fail(claim: Claim, code: str, message: str) -> None:
    with unit_of_work() as db:
        runs.finish_failed(db, claim, code, clean(message))
