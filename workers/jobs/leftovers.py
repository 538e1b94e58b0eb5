"""What runs have left of jobs that are over: in storage, and on this machine's disk."""

from __future__ import annotations

import shutil
import time
from datetime import timedelta
from pathlib import Path

from sqlalchemy import select

from app import left_places
from app.checkpoints.models import Checkpoint
from app.db import unit_of_work
from app.jobs.models import TERMINAL, Job
from app.settings import get_settings
from app.storage import get_storage
from workers.jobs.db_recorder import state_prefix

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


def _remove_unrecorded(job_id: str) -> None:
    """Of `jobs/JOB/checkpoints/STEP-ATTEMPT/...`, what no row speaks of."""
    folder = f"jobs/{job_id}/checkpoints"
    names = {key.removeprefix(f"{folder}/").partition("/")[0] for key in get_storage().list_keys(folder)}
    with unit_of_work() as db:
        recorded = db.scalars(select(Checkpoint.storage_key).where(Checkpoint.job_id == job_id)).all()
    for prefix in {f"{folder}/{name}" for name in names}.difference(recorded):
        get_storage().delete_prefix(prefix)


def _is_quiet(folder: Path) -> bool:
    changed = max((path.stat().st_mtime for path in (folder, *folder.glob("*"))), default=0.0)
    return changed < time.time() - QUIET.total_seconds()
