"""A process of its own for claimed work: started, watched while its lease is kept, and what its end means.

Work that may take hours and loads no torch runs so: runs of evals, regrades. Short work is forked
(`leased.py`).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from enum import Enum

import structlog
from sqlalchemy.exc import SQLAlchemyError

from app import process
from app.settings import get_settings
from workers.jobs.attempt import LOOK_SECONDS
from workers.jobs.faults import Exit
from workers.jobs.validators import LAST_STEPS_SECONDS, POLL_SECONDS

log = structlog.get_logger(__name__)


class End(Enum):
    """Why watching a process ended."""

    EXITED = "exited"
    WORKER_STOPS = "worker stops"
    HANGS = "hangs"
    LEASE_LOST = "lease lost"


def run_to_its_end(
    command: Sequence[str],
    renew: Callable[[], float],
    lost: type[Exception],
    stopping: threading.Event,
) -> tuple[End, int]:
    """Runs `python -m` with a module and its arguments; returns why it ended and its exit code.

    None of its processes is left then. `renew` keeps the lease, says how many seconds ago there was progress,
    and raises `lost` where the row is another's.
    """
    whole = [sys.executable, "-m", *command]
    child = process.spawn(whole, on_parent_death=signal.SIGKILL, env=dict(os.environ))
    try:
        end = _watch(child, renew, lost, stopping)
    finally:
        process.kill_family(child)
    return end, child.returncode


def why_to_try_again(end: End, code: int) -> str | None:
    """Returns why work is to be given back whose process ended so; None where its outcome is written or
    another's to write.
    """
    if end is End.HANGS:
        return f"it made no progress for {get_settings().phase_limit}"
    if end is not End.EXITED or code in (Exit.OUTCOME_WRITTEN, Exit.LEASE_LOST, Exit.DATABASE_AWAY):
        return None  # of the last, the lease runs out, and somebody tries again
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}, perhaps for lack of memory"
    return f"it exited with code {code}"


def _watch(
    child: subprocess.Popen[bytes],
    renew: Callable[[], float],
    lost: type[Exception],
    stopping: threading.Event,
) -> End:
    """Keeps the lease while the process lives; returns when there is something to do."""
    settings = get_settings()
    next_look = 0.0
    while child.poll() is None:
        if stopping.wait(POLL_SECONDS):
            return End.WORKER_STOPS
        if time.monotonic() < next_look:
            continue
        next_look = time.monotonic() + min(LOOK_SECONDS, settings.lease.total_seconds() / 6)
        try:
            seconds = renew()
        except lost:  # by a cancel; or the process has just written its outcome and is about to end
            return End.EXITED if _exits_now(child) else End.LEASE_LOST
        except SQLAlchemyError as problem:  # the fence keeps us safe if this outlasts the lease
            log.warning("lease_not_renewed", problem=str(problem))
            continue
        if seconds > settings.phase_limit.total_seconds():
            return End.HANGS
    return End.EXITED


def _exits_now(child: subprocess.Popen[bytes]) -> bool:
    try:
        child.wait(LAST_STEPS_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True
