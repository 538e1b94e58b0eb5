"""Pauses jobs for which a disk has no room, and lets them go on once it has."""

from __future__ import annotations

import tempfile
from pathlib import Path

from sqlalchemy import func, select
from sqlalchemy.orm import Session

from app import queue
from app.disk import Room, fullest, has_room
from app.events import service as events
from app.jobs import runs, status
from app.jobs.models import Job
from app.jobs.status import Claim
from app.storage import written_folders


def pause_for_room(db: Session, claim: Claim, room: Room) -> None:
    """Pauses a job until a folder has room; if its owner had asked for a cancel or a pause, that is done.

    Raises `LeaseLost`.
    """
    if runs.end_as_asked(db, claim):
        return
    mebibytes = -(-room.bytes // 2**20)
    why = f"{room.folder} has no room left; it goes on by itself once {mebibytes} MiB are free there"
    runs.pause_now(db, claim.job_id, claim, why, level="warn", waits_for_room=room._asdict())


def leave_until_room(db: Session, claim: Claim) -> None:
    """Leaves a job that could not be validated for lack of room until its lease runs out, and says why.

    The attempt does not count as fruitless. Raises `LeaseLost`.
    """
    fruitless = func.greatest(Job.fruitless_attempts - 1, 0)
    status.update_held(db, claim, fruitless_attempts=fruitless)
    folder = fullest([*written_folders(), Path(tempfile.gettempdir())])
    message = f"{folder} has no room left; the files are read once it has"
    events.append(db, claim.job_id, "validation-waits-for-room", message, level="warn")


def resume_where_room(db: Session) -> int:
    """Queues those jobs again that wait for room in a folder of this machine which has it now.

    Returns how many.
    """
    waiting = select(Job).where(Job.status == "paused", Job.waits_for_room.is_not(None))
    resumed = 0
    for job in db.scalars(waiting.with_for_update(skip_locked=True)).all():
        room = Room(**(job.waits_for_room or {}))
        if has_room(room):
            status.move(db, job.id, "queued", pause_requested_at=None, waits_for_room=None)
            message = f"{room.folder} has room again, moving job to queued state"
            events.append(db, job.id, f"resumed-{job.last_seq}", message)
            resumed += 1
    if resumed:
        queue.wake_trainer(db)
    return resumed
