"""One attempt at a job as its worker sees it: claim, a child process, its heartbeat, its end.

The child (`python -m workers.jobs.run`) writes its own outcome under the fence. This side settles what a
child cannot: a crash, a hang, a cancel, a stopping worker.
"""

from __future__ import annotations

import contextlib
import math
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
from app.db import unit_of_work
from app.devices.claims import Claim as Devices
from app.devices.listing import VISIBLE
from app.jobs import capacity, room, runs
from app.jobs.models import Job
from app.jobs.status import Claim, LeaseLost
from app.settings import get_settings
from methods.train_config import TrainConfig
from methods.tune_config import TuneConfig, read_config
from workers.devices.turns import next_with_devices, tell_next
from workers.jobs import delivery
from workers.jobs.faults import Exit

log = structlog.get_logger(__name__)

LOOK_SECONDS = 1.0
"""Between two looks at the job: renewing the lease, seeing a cancel."""
TELL_SECONDS = 5.0
"""Between two looks at who waits for the devices of this machine. Chosen, not measured."""
CANCEL_GRACE = 10.0
LAST_STEPS_SECONDS = 5.0
WORKSPACE = {"CUBLAS_WORKSPACE_CONFIG": ":4096:8"}
"""What a deterministic training needs before CUDA starts: see training/base/determinism.py, with torch."""
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "DO_NOT_TRACK": "1"}
"""Environment of every training: models and data are files here, and nobody else is told of it."""
SETTLE_SECONDS = 60.0
"""How long to go on trying to write the outcome while the database is away."""


class End(Enum):
    """Why watching a child ended."""

    EXITED = "exited"
    CANCELLED = "cancelled"
    WORKER_STOPS = "worker stops"
    HANGS = "hangs"
    LEASE_LOST = "lease lost"


def train_next(owner: str, stopping: threading.Event) -> bool:
    """Claim the next job and work on it until this attempt is over; False if none can begin here now."""
    found = next_with_devices()
    if found is None:
        return False
    job_id, held = found
    try:
        settings = get_settings()
        offered = capacity.of_this_machine(settings)
        with unit_of_work() as db:
            claim = runs.claim_for_training(db, owner, settings.lease, offered, job_id)
        if claim is None:  # another worker was quicker
            stopping.wait(0.05)
            return True
        return _train(claim, held, stopping)
    finally:
        held.close()


def _train(claim: Claim, held: Devices, stopping: threading.Event) -> bool:
    settings = get_settings()
    log.info("job_claimed", job_id=claim.job_id, attempt=claim.attempt, devices=held.names)
    with unit_of_work() as db:
        is_worn_out = runs.was_worn_out(db, claim, settings.max_fruitless_attempts)
    if is_worn_out:
        delivery.give_up(claim, "server_error", "The job's workers were lost again and again.")
        return True
    child = start_child(claim, held)
    end = End.LEASE_LOST
    try:
        end = watch(child, claim, stopping)
    finally:
        _end_child(child, end)
    log.info("attempt_over", job_id=claim.job_id, attempt=claim.attempt, end=end.value, code=child.returncode)
    code = child.returncode
    if end is End.EXITED and (said := delivery.exit_code(claim)) is not None:
        code = said  # several processes end with the code of the program that started them
    _until_database_answers(lambda: settle(claim, end, code), stopping)
    _until_database_answers(lambda: delivery.clean_up(claim), stopping)
    return True


def start_child(claim: Claim, held: Devices) -> subprocess.Popen[bytes]:
    """The training, as a process of its own: a fault there never takes the worker with it.

    Several processes that share each step are started by torchrun, which ends them all when one dies. Those
    of seeds side by side are started by the training itself (seats.py).
    """
    with unit_of_work() as db:
        config = read_config(db.get_one(Job, claim.job_id).config or {})
    command = [sys.executable, "-m", "workers.jobs.run", claim.job_id, "--attempt", str(claim.attempt)]
    is_beside = isinstance(config, TrainConfig) and config.trains_seeds_beside
    if config.processes > 1 and not is_beside:
        command = torchrun(config.processes, [*command, "--device", config.device])
    env = {**os.environ, **OFFLINE, **child_settings(config.processes), **devices_environment(config, held)}
    return process.spawn(command, on_parent_death=signal.SIGKILL, env=env)


def devices_environment(config: TrainConfig | TuneConfig, held: Devices) -> dict[str, str]:
    """What a training is told of devices: those it has, and none where it computes on the CPU.

    Where the driver tells of no GPU, one that torch may find nevertheless is left to it.
    """
    if held.devices or config.device == "cpu":
        return {**held.environment(), **(WORKSPACE if config.deterministic else {})}
    # TRL's trainers would spread over every GPU that they see.
    first = os.environ.get(VISIBLE, "0").split(",")[0]
    return {VISIBLE: first} if isinstance(config, TuneConfig) else {}


def torchrun(processes: int, command: Sequence[str]) -> list[str]:
    """The command that runs another in several processes on this machine and ends them all if one fails."""
    grace = math.ceil(get_settings().shutdown_grace.total_seconds())
    launcher = [sys.executable, "-m", "workers.devices.torchrun", str(processes), str(grace)]
    # They are in sessions of their own, where a signal to the launcher's group does not reach them.
    return [*launcher, *process.bound_to_parent(command, signal.SIGKILL)]


def child_settings(processes: int) -> dict[str, str]:
    """Environment of a training: threads of each process, and for several the interface they speak on."""
    threads = get_settings().trainer_threads
    if not threads and processes > 1 and "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, capacity.cores() // processes)
    chosen = {"OMP_NUM_THREADS": str(threads), "MKL_NUM_THREADS": str(threads)} if threads else {}
    if processes > 1 and sys.platform == "linux":
        chosen["GLOO_SOCKET_IFNAME"] = os.environ.get("GLOO_SOCKET_IFNAME", "lo")
    return chosen


def watch(child: subprocess.Popen[bytes], claim: Claim, stopping: threading.Event) -> End:
    """Keep the lease while the child lives; return when there is something to do."""
    settings = get_settings()
    next_look = next_telling = 0.0
    while child.poll() is None:
        if stopping.wait(0.05):
            return End.WORKER_STOPS
        if time.monotonic() < next_look:
            continue
        next_look = time.monotonic() + min(LOOK_SECONDS, settings.lease.total_seconds() / 6)
        try:
            with unit_of_work() as db:
                heartbeat = runs.renew(db, claim, settings.lease)
            if time.monotonic() >= next_telling:
                next_telling = time.monotonic() + TELL_SECONDS
                tell_next()
        except LeaseLost:
            return End.EXITED if _exits_now(child) else End.LEASE_LOST
        except SQLAlchemyError as problem:  # the fence keeps us safe if this outlasts the lease
            log.warning("lease_not_renewed", job_id=claim.job_id, problem=str(problem))
            continue
        if heartbeat.cancel_requested:
            return End.CANCELLED
        if heartbeat.seconds_in_phase > settings.phase_limit.total_seconds():
            return End.HANGS
    return End.EXITED


def _exits_now(child: subprocess.Popen[bytes]) -> bool:
    """A child that has just written its outcome is about to end by itself."""
    try:
        child.wait(LAST_STEPS_SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def _end_child(child: subprocess.Popen[bytes], end: End) -> None:
    """No child and no child's child is left when this returns."""
    if end in (End.CANCELLED, End.WORKER_STOPS):
        grace = CANCEL_GRACE if end is End.CANCELLED else get_settings().shutdown_grace.total_seconds()
        child.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(grace)
    process.kill_family(child)


def settle(claim: Claim, end: End, code: int) -> None:
    """Write what the child could not. Writes nothing if the child has, or if the job is another's."""
    settings = get_settings()
    try:
        if end is End.CANCELLED:
            with unit_of_work() as db:
                runs.finish_cancelled(db, claim)
        elif end is End.EXITED and code == Exit.PAUSED:
            with unit_of_work() as db:
                runs.release(db, claim, "The pause was withdrawn")
        elif end is End.EXITED and code == Exit.NO_ROOM:
            wanted = delivery.room_to_go_on(claim)
            with unit_of_work() as db:
                room.pause_for_room(db, claim, wanted)
        elif end is End.WORKER_STOPS or code in (Exit.DATABASE_AWAY, Exit.STOPPED):
            with unit_of_work() as db:
                runs.release(db, claim)
        elif end is not End.LEASE_LOST and code != Exit.LEASE_LOST:
            reason = _reason(claim, end, code)
            with unit_of_work() as db:
                is_worn_out = runs.is_worn_out(db, claim, settings.max_fruitless_attempts)
                if not is_worn_out:
                    runs.requeue_crashed(db, claim, reason)
            if is_worn_out:
                tried = f"{settings.max_fruitless_attempts} attempts in a row made no new step"
                delivery.give_up(claim, "server_error", f"{tried}. The last one ended early: {reason}.")
    except LeaseLost:
        log.info("attempt_already_settled", job_id=claim.job_id, attempt=claim.attempt)


def _reason(claim: Claim, end: End, code: int) -> str:
    if end is End.HANGS:
        return f"it made no progress for {get_settings().phase_limit}"
    if code < 0:
        name = signal.Signals(-code).name
        return f"it was killed by {name}" + (", perhaps for lack of memory" if name == "SIGKILL" else "")
    return delivery.last_words(claim) or f"it exited with code {code}"


def _until_database_answers(write: Callable[[], None], stopping: threading.Event) -> None:
    """Try again while the database is away; if that takes too long, the lease will run out instead."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        try:
            write()
            return
        except SQLAlchemyError as problem:
            log.warning("outcome_not_written", problem=str(problem))
            if stopping.is_set() or time.monotonic() > deadline:
                return
            time.sleep(LOOK_SECONDS)
