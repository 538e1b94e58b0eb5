"""What runs have left of jobs that are over: in storage, and on this machine's disk."""

from __future__ import annotations

import shutil
import tempfile
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from app import left_places
from app.checkpoints.models import Checkpoint
from app.db import unit_of_work
from app.disk import remove_unheld
from app.jobs.models import TERMINAL, Job
from app.jobs.status import Claim
from app.settings import COPIES, get_settings
from app.storage import get_storage
from workers.jobs.db_recorder import state_names, state_prefix
from workers.jobs.job_data import SCRATCH

QUIET = timedelta(hours=1)
"""A working folder in which nothing was made for so long is at nobody's hands once its job is over."""


def remove_stored(limit: int) -> int:
    """Remove training states, and checkpoints that a run was killed before recording; tells how many jobs."""
    over = select(Job.id).where(Job.status.in_(TERMINAL), Job.state_step.is_not(None))
    with unit_of_work() as db:
        job_ids = db.scalars(over.limit(limit)).all()
    for job_id in job_ids:
        get_storage().delete_prefix(state_prefix(job_id))
        _remove_unrecorded(job_id)
        with unit_of_work() as db:
            db.get_one(Job, job_id).state_step = None
    return len(job_ids)


def remove_folders() -> int:
    """Remove working folders that a worker left which was killed, or whose job was erased; tells how many."""
    quiet = {folder.name: folder for folder in get_settings().data_dir.glob("runs/*") if _is_quiet(folder)}
    with unit_of_work() as db:
        over = set(db.scalars(select(Job.id).where(Job.id.in_(quiet), Job.status.in_(TERMINAL))))
        over.update(job_id for job_id in quiet if left_places.was_erased(db, job_id))
    for job_id in over:
        shutil.rmtree(quiet[job_id], ignore_errors=True)
    return len(over)


def remove_scratch() -> int:
    """Remove temporary folders of processes that were killed; tells how many."""
    copies = get_settings().data_dir / COPIES
    return remove_unheld([*Path(tempfile.gettempdir()).glob(f"{SCRATCH}*"), *copies.glob("*")])


def remove_half_written(claim: Claim) -> None:
    """Remove what earlier attempts at a job have stored in vain: parts of states, unrecorded checkpoints.

    Those attempts are over, or fenced off.
    """
    whole = state_names(get_storage(), claim.job_id)
    for prefix in _stored_below(state_prefix(claim.job_id)):
        if prefix.rpartition("/")[2] not in whole and _attempt_of(prefix) < claim.attempt:
            get_storage().delete_prefix(prefix)
    for prefix in _unrecorded(claim.job_id):
        if _attempt_of(prefix) < claim.attempt:
            get_storage().delete_prefix(prefix)


def _remove_unrecorded(job_id: str) -> None:
    for prefix in _unrecorded(job_id):
        get_storage().delete_prefix(prefix)


def _unrecorded(job_id: str) -> set[str]:
    """Of `jobs/JOB/checkpoints/STEP-ATTEMPT/...`, what no row speaks of."""
    stored = _stored_below(f"jobs/{job_id}/checkpoints")
    with unit_of_work() as db:
        recorded = db.scalars(select(Checkpoint.storage_key).where(Checkpoint.job_id == job_id)).all()
    return stored.difference(recorded)


def _stored_below(folder: str) -> set[str]:
    keys = get_storage().list_keys(folder)
    return {f"{folder}/{key.removeprefix(f'{folder}/').partition('/')[0]}" for key in keys}


def _attempt_of(prefix: str) -> int:
    return int(prefix.rpartition("-")[2])


def _is_quiet(folder: Path) -> bool:
    changed = max((path.stat().st_mtime for path in (folder, *folder.glob("*"))), default=0.0)
    return changed < time.time() - QUIET.total_seconds()
